import { GatewayError } from '@llm-gateway/protocol';
import { type Etcd3, EtcdLeaseInvalidError, type IWatchResponse, Range } from 'etcd3';
import { connectEtcd, loginEnded } from './etcd-client.ts';
import type { TlsSettings } from './tls.ts';

export interface EtcdSettings {
  /** Before the keys; empty: nothing. */
  readonly namespace: string;
  readonly urls: readonly string[];
  /** Sent only when both are set. The password is read at each login. */
  readonly username: string;
  readonly password: () => string;
  /** Used at `https` URLs. */
  readonly tls: TlsSettings;
  /** For a connection and for each answer. */
  readonly dialTimeoutMs: number;
}

export interface EtcdEntry {
  readonly key: string;
  readonly value: Buffer;
  readonly leased: boolean;
}

/**
 * Which cluster answered, and how far its history went then. A revision that went back is another
 * history.
 */
export interface EtcdHead {
  readonly clusterId: string;
  readonly revision: number;
}

export interface WatchSink {
  onPut(entry: EtcdEntry, revision: number): void;
  onDelete(key: string, revision: number): void;
  /** The last thing heard, unless the watch was disposed of before. */
  onEnd(error: GatewayError): void;
}

/** Entries per read: a few of the largest records still fit into one message. */
const entriesPerRead = 500;

/**
 * A connection to one etcd endpoint, used until the first failure. The only user of etcd3's calls,
 * and only of the plain ones: its watches resume at the old revision after the data was lost and
 * hear nothing more, its leases end silently. Every method rejects with `store_unavailable`, at the
 * latest when the dial timeout has passed.
 */
export class EtcdConnection implements Disposable {
  readonly url: string;
  readonly #settings: EtcdSettings;
  /**
   * How to fail what is waited for: the library lets calls wait for their deadline after it was
   * closed.
   */
  readonly #waiting = new Set<(error: Error) => void>();
  #client: Etcd3 | null = null;
  /** Resolves when logged in, or found that there is no need. */
  #login: Promise<void> | null = null;
  #token: string | null = null;
  #closed = false;

  constructor(url: string, settings: EtcdSettings) {
    this.url = url;
    this.#settings = settings;
  }

  /** What still waits for an answer fails at once. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#client?.close();
    for (const fail of this.#waiting) fail(unavailable(this.url, new Error('closed')));
  }

  /** Everything under a prefix at one revision, read in pages. */
  async read(prefix: string): Promise<EtcdHead & { readonly entries: readonly EtcdEntry[] }> {
    const { start, end } = Range.prefix(prefix);
    const entries: EtcdEntry[] = [];
    let head: EtcdHead | null = null;
    for (let key = start; ; ) {
      const revision = head?.revision ?? 0;
      const page = await this.#call((client, options) =>
        client.kv.range({ key, range_end: end, limit: entriesPerRead, revision }, options),
      );
      head ??= readHead(page.header);
      for (const { key: name, value, lease } of page.kvs) {
        entries.push({ key: name.toString(), value, leased: lease !== '0' });
      }
      const last = page.kvs.at(-1);
      if (!page.more || !last) return { ...head, entries };
      key = Buffer.concat([last.key, Buffer.from([0])]);
    }
  }

  /** Answered only by a member that has a quorum. */
  async head(key: string): Promise<EtcdHead> {
    const { header } = await this.#call((client, options) =>
      client.kv.range({ key: Buffer.from(key), count_only: true }, options),
    );
    return readHead(header);
  }

  /**
   * Whether the cluster takes no puts because its quota is used up. False when it does not say:
   * this is no more than a hint.
   */
  async outOfSpace(): Promise<boolean> {
    try {
      const { errors } = await this.#call((client, options) => client.maintenance.status(options));
      return errors.some((text) => text.includes('alarm:NOSPACE'));
    } catch {
      return false;
    }
  }

  /**
   * Hears of every change under a prefix, or of one key, from a revision on (null: from now on).
   * Resolves when etcd has confirmed the watch, so that nothing after this is missed.
   */
  async watch(
    range: { readonly prefix: string } | { readonly key: string },
    fromRevision: number | null,
    sink: WatchSink,
  ): Promise<Disposable> {
    const { start: key, end: range_end } = 'prefix' in range ? Range.prefix(range.prefix) : new Range(range.key);
    const stream = await this.#call((client) => client.watchClient.watch());
    const confirmed = Promise.withResolvers<void>();
    let ended = false;
    const end = (error: GatewayError) => {
      if (ended) return;
      ended = true;
      stream.cancel();
      confirmed.reject(error);
      sink.onEnd(error);
    };
    stream.on('data', (response) => {
      if (ended) return;
      if (response.canceled) end(watchRefused(this.url, response));
      else if (response.created) confirmed.resolve();
      else report(response, sink);
    });
    // Stays after the end: cancelling emits an error too, and an unhandled one ends the process.
    stream.on('error', (cause) => end(unavailable(this.url, cause)));
    stream.on('end', () => end(unavailable(this.url, new Error('the watch ended'))));
    const timer = setTimeout(
      () => end(unavailable(this.url, new Error('no watch in time'))),
      this.#settings.dialTimeoutMs,
    );
    const start_revision = fromRevision ?? 0;
    stream.write({ create_request: { key, range_end, start_revision, progress_notify: true } });
    try {
      await this.#untilClosed(confirmed.promise);
    } finally {
      clearTimeout(timer);
    }
    return {
      [Symbol.dispose]() {
        if (ended) return;
        ended = true;
        stream.cancel();
      },
    };
  }

  /** A new lease; its id. */
  async grant(ttlSeconds: number): Promise<string> {
    const { ID } = await this.#call((client, options) => client.leaseClient.leaseGrant({ TTL: ttlSeconds }, options));
    return ID;
  }

  /** False when there is no such lease (any more). */
  async put(key: string, value: Buffer, lease: string): Promise<boolean> {
    const put = this.#call((client, options) => client.kv.put({ key: Buffer.from(key), value, lease }, options));
    return await unlessLeaseIsGone(put);
  }

  /** False when there is no such lease (any more). */
  async keepAlive(lease: string): Promise<boolean> {
    const stream = await this.#call((client, options) => client.leaseClient.leaseKeepAlive(options));
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    stream.on('data', ({ TTL }) => resolve(TTL !== '0'));
    stream.on('error', (cause) => reject(unavailable(this.url, cause)));
    stream.on('end', () => reject(unavailable(this.url, new Error('no answer'))));
    stream.write({ ID: lease });
    try {
      return await this.#untilClosed(promise);
    } finally {
      stream.end();
    }
  }

  /** Removes the lease with everything under it. */
  async revoke(lease: string): Promise<void> {
    await unlessLeaseIsGone(this.#call((client, options) => client.leaseClient.leaseRevoke({ ID: lease }, options)));
  }

  async delete(key: string): Promise<void> {
    await this.#call((client, options) => client.kv.deleteRange({ key: Buffer.from(key) }, options));
  }

  async #untilClosed<T>(waited: Promise<T>): Promise<T> {
    const { promise: closed, reject } = Promise.withResolvers<never>();
    this.#waiting.add(reject);
    try {
      return await Promise.race([waited, closed]);
    } finally {
      this.#waiting.delete(reject);
    }
  }

  async #call<T>(work: (client: Etcd3, options: CallOptions) => Promise<T>): Promise<T> {
    try {
      return await this.#attempt(work);
    } catch (cause) {
      // Tokens have an end; a client whose login ended logs in again.
      if (!(cause instanceof Error && cause.message.includes(loginEnded))) throw unavailable(this.url, cause);
    }
    this.#login = null;
    try {
      return await this.#attempt(work);
    } catch (cause) {
      throw unavailable(this.url, cause);
    }
  }

  async #attempt<T>(work: (client: Etcd3, options: CallOptions) => Promise<T>): Promise<T> {
    const options = { deadline: Date.now() + this.#settings.dialTimeoutMs };
    const attempt = async () => {
      if (this.#closed) throw new Error('closed');
      this.#client ??= connectEtcd(this.url, this.#settings, () => this.#token);
      const client = this.#client;
      this.#login ??= this.#logIn(client, options);
      await this.#login;
      return await work(client, options);
    };
    return await this.#untilClosed(attempt());
  }

  async #logIn(client: Etcd3, options: CallOptions): Promise<void> {
    this.#token = null;
    const { username: name } = this.#settings;
    const password = name === '' ? '' : this.#settings.password();
    if (password === '') return;
    try {
      const { token } = await client.auth.authenticate({ name, password }, options);
      this.#token = token;
    } catch (cause) {
      // A cluster that lost its data has no users either, and refuses passwords. Go's client goes
      // on without, too.
      if (!isAuthenticationOff(cause)) throw cause;
    }
  }
}

interface CallOptions {
  /** Unix time, milliseconds. */
  readonly deadline: number;
}

function readHead(header: { cluster_id: string; revision: string }): EtcdHead {
  return { clusterId: header.cluster_id, revision: Number(header.revision) };
}

function report(response: IWatchResponse, sink: WatchSink): void {
  for (const { type, kv } of response.events) {
    const key = kv.key.toString();
    // Of the event: the response may hold several revisions, and its header names the newest.
    const revision = Number(kv.mod_revision);
    // Spelled differently in the library's types and in what it delivers.
    if (type.toLowerCase() === 'delete') sink.onDelete(key, revision);
    else sink.onPut({ key, value: kv.value, leased: kv.lease !== '0' }, revision);
  }
}

function watchRefused(url: string, { compact_revision, cancel_reason }: IWatchResponse): GatewayError {
  const reason = compact_revision !== '0' ? `compacted at revision ${compact_revision}` : cancel_reason || 'cancelled';
  return unavailable(url, new Error(`watch: ${reason}`));
}

async function unlessLeaseIsGone(call: Promise<unknown>): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (error instanceof GatewayError && error.cause instanceof EtcdLeaseInvalidError) return false;
    throw error;
  }
}

function isAuthenticationOff(error: unknown): boolean {
  return error instanceof Error && error.message.includes('authentication is not enabled');
}

function unavailable(url: string, cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause;
  return new GatewayError('store_unavailable', `etcd ${url}: ${cause instanceof Error ? cause.message : cause}`, {
    cause,
  });
}
