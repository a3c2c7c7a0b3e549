import { type ErrorCode, errorCodes, GatewayError } from '@llm-gateway/protocol';
import {
  createInbox,
  headers as emptyHeaders,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
  type Subscription as NatsSubscription,
  PermissionViolationError,
} from '@nats-io/transport-node';
import { type BusObserver, type DisconnectReason, type DropReason, maxTraces, type RequestOptions } from './bus.ts';
import { askerLeft, noResponders, timedOut, unavailable } from './failure.ts';
import { InFlight } from './in-flight.ts';
import { StallWatch } from './stall-watch.ts';

const traceHeader = 'traceparent';
/**
 * How long the asker waits, in ms from when it asked: clocks of two machines cannot be compared.
 */
const timeoutHeader = 'Gateway-Timeout-Ms';
/** The NATS services protocol (ADR-32) marks an answer that is an error with these two. */
const errorHeader = 'Nats-Service-Error';
const errorStatusHeader = 'Nats-Service-Error-Code';
/** Our code of the same error. */
const errorCodeHeader = 'Gateway-Error-Code';

/**
 * Sent and not yet seen to have arrived at the server. The client's own buffer has no limit, and a
 * server that stopped reading is found only by its missing pongs, seconds later.
 */
const maxUnconfirmedBytes = 16 * 1024 * 1024;
const confirmAfterBytes = 256 * 1024;
export const defaultMaxPayload = 1024 * 1024;
const maxErrorLength = 1_000;
/**
 * More than the headers of any message here: an error of `maxErrorLength` characters, or a trace.
 */
const maxHeaderBytes = 8 * 1024;
/** More than the headers of a message that is no error: its timeout and `maxTraces` traces. */
export const messageHeaderBytes = 2048;

interface Pending {
  readonly subject: string;
  resolve(message: Msg): void;
  reject(error: GatewayError): void;
}

/**
 * One connection, from the handshake to its end; requests in flight end with it.
 *
 * Requests do not use the client's own `request`: that one can be neither aborted nor ended by a
 * disconnection (it waits out its timeout), and makes five promises for each. Its idea is the same:
 * one subscription for all replies, distinguished by the last token of the subject.
 */
export class Link {
  readonly #connection: NatsConnection;
  readonly #observer: BusObserver;
  readonly #inbox: string;
  readonly #pending = new Map<string, Pending>();
  readonly #lost = new AbortController();
  /** Requests that handlers are still working on. */
  readonly answering = new InFlight();
  #requests = 0;
  #unconfirmedBytes = 0;
  #confirming = false;

  /** @param inbox the subjects under which replies come */
  constructor(connection: NatsConnection, inbox: string, observer: BusObserver) {
    this.#connection = connection;
    this.#observer = observer;
    this.#inbox = `${createInbox(inbox)}.`;
    this.subscribe(`${this.#inbox}*`, undefined, (message) => this.#settle(message));
  }

  /** Aborts when the connection is gone. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  get server(): string {
    return this.#connection.getServer();
  }

  get maxBytes(): number {
    return this.#connection.info?.max_payload ?? defaultMaxPayload;
  }

  /** The server has not confirmed so much that nothing more is sent. */
  get isFull(): boolean {
    return this.#unconfirmedBytes >= maxUnconfirmedBytes;
  }

  /** `receive` must not throw. */
  subscribe(subject: string, queue: string | undefined, receive: (message: Msg) => void): NatsSubscription {
    return this.#connection.subscribe(subject, {
      ...(queue !== undefined && { queue }),
      callback: (error, message) => {
        if (error === null) receive(message);
      },
    });
  }

  /** Undefined when it was sent. */
  publish(
    subject: string,
    bytes: Uint8Array,
    options: { reply?: string; headers?: MsgHdrs } = {},
  ): DropReason | undefined {
    if (this.#lost.signal.aborted || this.#connection.isClosed()) return 'disconnected';
    if (sizeOf(bytes, options.headers, this.maxBytes) > this.maxBytes) return 'too_large';
    if (this.isFull) return 'backlog';
    this.#connection.publish(subject, bytes, options);
    this.#unconfirmedBytes += bytes.length;
    if (this.#unconfirmedBytes >= confirmAfterBytes) this.#confirm();
    return undefined;
  }

  #confirm(): void {
    if (this.#confirming) return;
    this.#confirming = true;
    const confirmedBytes = this.#unconfirmedBytes;
    this.#connection.flush().then(
      () => {
        this.#confirming = false;
        this.#unconfirmedBytes -= confirmedBytes;
        if (this.#unconfirmedBytes >= confirmAfterBytes) this.#confirm();
      },
      // The connection is gone, and this object with it.
      () => undefined,
    );
  }

  request(subject: string, bytes: Uint8Array, options: RequestOptions): Promise<Msg> {
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs, traces } = options;
      this.#requests += 1;
      const token = this.#requests.toString(36);
      const dropped = this.publish(subject, bytes, {
        reply: this.#inbox + token,
        headers: requestHeaders(timeoutMs, traces),
      });
      if (dropped !== undefined) {
        reject(dropFailure(subject, dropped, { bytes: bytes.length, maxBytes: this.maxBytes }));
        return;
      }
      const end = () => {
        this.#pending.delete(token);
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      const fail = (error: GatewayError) => {
        end();
        reject(error);
      };
      const onAbort = () => fail(askerLeft(subject, signal?.reason));
      const timer = setTimeout(() => fail(timedOut(subject, timeoutMs)), timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(token, {
        subject,
        reject: fail,
        resolve(message) {
          end();
          resolve(message);
        },
      });
    });
  }

  #settle(message: Msg): void {
    const pending = this.#pending.get(message.subject.slice(this.#inbox.length));
    // Too late: the asker gave up.
    if (pending === undefined) return;
    const failure = message.headers && replyFailure(pending.subject, message, message.headers);
    if (failure === undefined) pending.resolve(message);
    else pending.reject(failure);
  }

  reply(to: Msg, bytes: Uint8Array): DropReason | undefined {
    if (!to.reply) return undefined;
    return this.publish(to.reply, bytes);
  }

  replyFailure(to: Msg, failure: GatewayError): void {
    if (!to.reply) return;
    const headers = emptyHeaders();
    // A header is one line.
    headers.set(errorHeader, failure.message.replaceAll(/\s+/g, ' ').slice(0, maxErrorLength));
    headers.set(errorStatusHeader, String(errorCodes[failure.code].status));
    headers.set(errorCodeHeader, failure.code);
    this.publish(to.reply, new Uint8Array(0), { headers });
  }

  /** Resolves when the connection is gone, with the reason. */
  async ended(): Promise<Exclude<DisconnectReason, 'closed'>> {
    using stalls = new StallWatch();
    const statuses = this.#readStatuses();
    await this.#connection.closed();
    if (statuses.stale) return 'stale';
    return stalls.stalledLately() ? 'slow' : 'lost';
  }

  #readStatuses(): { readonly stale: boolean } {
    const seen = { stale: false };
    const read = async () => {
      for await (const status of this.#connection.status()) {
        if (status.type === 'error') this.#refuse(status.error);
        if (status.type !== 'staleConnection') continue;
        seen.stale = true;
        // The client closes a stale socket only after it wrote what is buffered: never, when the
        // server does not read. Not awaited: it waits for the end of this loop.
        void this.#connection.close();
      }
    };
    void read();
    return seen;
  }

  #refuse(cause: Error): void {
    this.#observer.refused?.(
      new GatewayError('bus_unavailable', `the NATS server refused: ${cause.message}`, { cause }),
    );
    if (!(cause instanceof PermissionViolationError) || cause.operation !== 'publish') return;
    // The server does not say which message it was; it would refuse the others as well.
    for (const pending of [...this.#pending.values()]) {
      if (pending.subject !== cause.subject) continue;
      pending.reject(unavailable(pending.subject, `the NATS server does not allow ${pending.subject}`));
    }
  }

  /** Undefined when the connection ended before the answer. */
  async roundTripMs(): Promise<number | undefined> {
    const startedMs = performance.now();
    return await this.#connection.flush().then(
      () => performance.now() - startedMs,
      () => undefined,
    );
  }

  flush(): Promise<void> {
    return this.#connection.flush();
  }

  async close(): Promise<void> {
    this.drop();
    await this.#connection.close();
  }

  /** Nothing is sent any more, and what waits for an answer fails. */
  drop(): void {
    this.#lost.abort();
    for (const pending of [...this.#pending.values()]) {
      pending.reject(unavailable(pending.subject, 'the connection was lost before the answer'));
    }
  }
}

const none: readonly string[] = [];

/** The `traceparent`s of a message. */
export function tracesOf(message: Msg): readonly string[] {
  return message.headers?.has(traceHeader) ? message.headers.values(traceHeader).slice(0, maxTraces) : none;
}

/** How long the asker of a message waits; undefined when it does not say so. */
export function timeoutOf(message: Msg): number | undefined {
  const timeoutMs = Number(message.headers?.get(timeoutHeader) || Number.NaN);
  return timeoutMs >= 0 ? timeoutMs : undefined;
}

function requestHeaders(timeoutMs: number, traces: readonly string[] = none): MsgHdrs {
  const headers = emptyHeaders();
  headers.append(timeoutHeader, String(timeoutMs));
  for (const trace of traces.slice(0, maxTraces)) headers.append(traceHeader, trace);
  return headers;
}

export function dropFailure(
  subject: string,
  reason: DropReason,
  size: { readonly bytes: number; readonly maxBytes: number },
): GatewayError {
  switch (reason) {
    case 'disconnected':
      return unavailable(subject);
    case 'backlog':
      return unavailable(subject, 'the NATS server does not read fast enough');
    case 'too_large':
      return new GatewayError(
        'invalid_message',
        `a message of ${size.bytes} bytes on ${subject} is over the ${size.maxBytes} bytes that the NATS server takes`,
        { details: { subject, ...size } },
      );
  }
}

/** Headers count as well, but are encoded to be measured only where that could matter. */
function sizeOf(bytes: Uint8Array, headers: MsgHdrs | undefined, maxBytes: number): number {
  const isNear = headers !== undefined && bytes.length + maxHeaderBytes > maxBytes;
  return bytes.length + (isNear ? Buffer.byteLength(headers.toString()) : 0);
}

function replyFailure(subject: string, message: Msg, headers: MsgHdrs): GatewayError | undefined {
  if (headers.code === 503 && message.data.length === 0) return noResponders(subject);
  const text = headers.get(errorHeader);
  if (text === '') return undefined;
  const code = headers.get(errorCodeHeader);
  return new GatewayError(isErrorCode(code) ? code : 'internal', text, { details: { subject } });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCodes, code);
}
