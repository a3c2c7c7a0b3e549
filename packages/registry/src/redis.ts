import type { ConnectionOptions } from 'node:tls';
import { GatewayError } from '@llm-gateway/protocol';
import { Redis, type RedisOptions } from 'ioredis';
import { Pause, retryDelayMs } from './pause.ts';
import { restoreStringLookups } from './string-lookups.ts';
import { readTlsFiles, type TlsSettings } from './tls.ts';

restoreStringLookups();

export interface RedisAddress {
  /** IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

/** Who says where the master is. */
export interface SentinelSettings {
  /** The name that the Sentinels know it by. */
  readonly master: string;
  /** Empty: not sent. */
  readonly username: string;
  readonly password: () => string;
  /** Null: they speak no TLS. */
  readonly tls: TlsSettings | null;
}

export interface RedisSettings {
  /** Before the keys; empty: nothing. */
  readonly namespace: string;
  /** Of the server, of nodes of one cluster, or of the Sentinels. */
  readonly addresses: readonly RedisAddress[];
  readonly sentinel: SentinelSettings | null;
  readonly db: number;
  /** Empty: not sent. */
  readonly username: string;
  /** Read at each connection. */
  readonly password: () => string;
  /** Null: no TLS. */
  readonly tls: TlsSettings | null;
  /** For the connection, and for the answer to each command. */
  readonly socketTimeoutMs: number;
  /** How often a command is tried again when the connection failed. */
  readonly retryTimes: number;
}

/**
 * A connection is this old before it is given up because Redis only reads, and before the next one
 * is made without delay: a master that is being elected must not be met by a storm of connections.
 */
const minConnectionMs = 1000;

/** What a server says of itself. */
interface Greeting {
  readonly isCluster: boolean;
  readonly isMaster: boolean;
}

interface Connection extends Greeting {
  readonly redis: Redis;
  readonly address: RedisAddress;
  readonly sinceMs: number;
}

/**
 * One connection to Redis at a time, to one of some addresses after the other, made again whenever
 * it ends: with the certificates and the password as their files hold them then. The only user of
 * ioredis.
 */
export class RedisLink implements Disposable {
  readonly #settings: RedisSettings;
  readonly #addresses: () => readonly RedisAddress[];
  readonly #pause = new Pause();
  readonly #listeners = new Set<(isConnected: boolean) => void>();
  readonly #waiting = new Set<{ resolve(connection: Connection): void; reject(error: unknown): void }>();
  #connection: Connection | null = null;
  /** What is being connected. */
  #opening: Redis | null = null;
  #attempts = 0;
  #connections = 0;
  #lastError: unknown;
  #closed = false;

  constructor(settings: RedisSettings, addresses: () => readonly RedisAddress[] = () => settings.addresses) {
    this.#settings = settings;
    this.#addresses = addresses;
    void this.#run();
  }

  /**
   * Grows with each connection: what was read before and after a change was perhaps not read from
   * the same data.
   */
  get connections(): number {
    return this.#connections;
  }

  /** Waits for the connection. Rejects as `call` does. */
  async connected(): Promise<Greeting & { readonly address: RedisAddress }> {
    return await this.#use(async (connection) => connection);
  }

  /** Hears of each connection, and of its end. */
  onConnection(listener: (isConnected: boolean) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Runs one command. Rejects with `store_unavailable` when there is no connection in time, no
   * answer in time, or the answer is an error; that is its cause then.
   */
  async call<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    return await this.#use(({ redis }) => command(redis));
  }

  /** What still waits for an answer fails at once. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#pause.ring();
    for (const { reject } of this.#waiting) reject(new Error('closed'));
    for (const redis of [this.#opening, this.#connection?.redis]) if (redis) end(redis);
  }

  async #use<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    for (let failures = 0; ; failures++) {
      let connection: Connection | null = null;
      try {
        connection = await this.#ready();
        return await work(connection);
      } catch (cause) {
        // What Redis itself answered, it would answer again; what was never sent is not sent again.
        const answered = isAnswer(cause);
        if (answered) this.#leaveIfDemoted(cause, connection);
        else if (connection && failures < this.#settings.retryTimes && !this.#closed) continue;
        const reason = answered ? cause : (this.#lastError ?? cause);
        throw new GatewayError('store_unavailable', `redis: ${textOf(reason)}`, { cause: reason });
      }
    }
  }

  /**
   * A master that was demoted keeps its connections, and refuses writes for ever; the address may
   * lead to the new one by now.
   */
  #leaveIfDemoted(error: Error, connection: Connection | null): void {
    if (!connection || !error.message.startsWith('READONLY')) return;
    if (performance.now() - connection.sinceMs > minConnectionMs) end(connection.redis);
  }

  async #ready(): Promise<Connection> {
    if (this.#connection) return this.#connection;
    if (this.#closed) throw new Error('closed');
    const waiter = Promise.withResolvers<Connection>();
    const fail = (): void => waiter.reject(this.#lastError ?? new Error('no connection in time'));
    const timer = setTimeout(fail, this.#settings.socketTimeoutMs);
    this.#waiting.add(waiter);
    try {
      return await waiter.promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(waiter);
    }
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#closed) {
      const startedMs = performance.now();
      try {
        const connection = await this.#open();
        const ended = Promise.withResolvers<void>();
        connection.redis.once('end', ended.resolve);
        if (connection.redis.status === 'ready' && !this.#closed) {
          this.#lastError = undefined;
          this.#connection = connection;
          this.#connections++;
          for (const { resolve } of this.#waiting) resolve(connection);
          for (const listener of this.#listeners) listener(true);
          await ended.promise;
          this.#connection = null;
          if (!this.#closed) for (const listener of this.#listeners) listener(false);
        }
      } catch (error) {
        this.#lastError = error;
        this.#attempts++;
      }
      this.#connection = null;
      failures = performance.now() - startedMs > minConnectionMs ? 1 : failures + 1;
      if (!this.#closed) await this.#pause.wait(retryDelayMs(failures, Math.random));
    }
  }

  /** A connection that Redis has greeted. */
  async #open(): Promise<Connection> {
    const { db, sentinel, socketTimeoutMs } = this.#settings;
    const addresses = this.#addresses();
    const address = addresses[this.#attempts % addresses.length] ?? { host: '', port: 0 };
    const tls = this.#settings.tls && tlsOptions(this.#settings.tls);
    const options: Omit<RedisOptions, 'replyMapping'> = {
      ...(sentinel
        ? sentinelOptions(sentinel, { addresses, timeoutMs: socketTimeoutMs, first: this.#attempts })
        : address),
      ...(tls && { tls, enableTLSForSentinelMode: true }),
      family: 0,
      lazyConnect: true,
      connectTimeout: socketTimeoutMs,
      socketTimeout: socketTimeoutMs,
      // Each connection is a new object, and so has the newest password and certificates.
      retryStrategy: () => null,
      // A command either goes out now or fails: one that waited would be sent at a time when it is
      // no longer meant.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      // No command but ours: an ACL user may have no right to others.
      protocol: 2,
      enableReadyCheck: false,
      disableClientInfo: true,
    };
    const redis = new Redis(options);
    this.#opening = redis;
    let failure: unknown;
    redis.on('error', (error) => {
      failure = error;
      this.#lastError = error;
    });
    try {
      await redis.connect();
      await logIn(redis, this.#settings);
      const greeting = await greet(redis);
      if (sentinel && !greeting.isMaster) throw new Error(`Sentinel named a replica as the master ${sentinel.master}`);
      if (db !== 0) await redis.select(db);
      return { ...greeting, redis, address, sinceMs: performance.now() };
    } catch (error) {
      end(redis);
      // The library calls every lost connection closed, and says why beside it.
      throw isAnswer(error) ? error : (failure ?? error);
    } finally {
      this.#opening = null;
    }
  }
}

function sentinelOptions(
  { master, username, password, tls }: SentinelSettings,
  { addresses, timeoutMs, first }: { addresses: readonly RedisAddress[]; timeoutMs: number; first: number },
): RedisOptions {
  const at = first % addresses.length;
  const secret = password();
  return {
    // One that knows only of a master that is no more must not be asked first for ever.
    sentinels: [...addresses.slice(at), ...addresses.slice(0, at)],
    name: master,
    role: 'master',
    ...(username !== '' && { sentinelUsername: username }),
    ...(secret !== '' && { sentinelPassword: secret }),
    ...(tls && { sentinelTLS: tlsOptions(tls) }),
    sentinelCommandTimeout: timeoutMs,
    sentinelRetryStrategy: () => null,
    updateSentinels: false,
  };
}

function tlsOptions(settings: TlsSettings): ConnectionOptions {
  const { serverName: servername } = settings;
  return { ...readTlsFiles(settings), ...(servername !== '' && { servername }) };
}

async function logIn(redis: Redis, settings: RedisSettings): Promise<void> {
  const { username } = settings;
  const password = settings.password();
  if (username !== '') await redis.auth(username, password);
  else if (password !== '') {
    try {
      await redis.auth(password);
    } catch (error) {
      // A password too many is no reason to do without the store.
      if (!/without any password configured|no password is set/.test(textOf(error))) throw error;
    }
  }
}

/** HELLO needs no permission but to be logged in. */
async function greet(redis: Redis): Promise<Greeting> {
  try {
    const reply: unknown = await redis.call('HELLO');
    const words = Array.isArray(reply) ? reply : [];
    const fact = (name: string): unknown => words[words.indexOf(name) + 1];
    return { isCluster: fact('mode') === 'cluster', isMaster: fact('role') === 'master' };
  } catch (error) {
    // Before Redis 6, or taken away in its configuration.
    if (!/unknown command/i.test(textOf(error))) throw error;
    return { isCluster: false, isMaster: true };
  }
}

function end(redis: Redis): void {
  redis.disconnect();
  // The library waits for the server's half of the connection, which a server that hangs never closes.
  redis.stream?.destroy();
}

function isAnswer(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError';
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
