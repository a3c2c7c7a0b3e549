import type { Socket } from 'node:net';
import {
  credentialHeaders,
  FieldInterest,
  HeaderLines,
  InvalidHead,
  mayBecomeRequest,
  parseRequestHead,
  type RequestHead,
} from '@llm-gateway/http1';
import { type ErrorCode, GatewayError } from '@llm-gateway/protocol';
import type { Holding } from '../body-budget.ts';
import { BodyReader } from './body-reader.ts';
import type { Sender, TrustedProxies } from './forwarded.ts';
import type { ClientLimits } from './options.ts';

/** What a connection needs of the server that accepted it. */
export interface ConnectionHost {
  readonly limits: ClientLimits;
  /** From the beginning of a shutdown on: every answer is the last of its connection. */
  readonly closing: boolean;
  /** Whether uploads that stand still have to make room for others. */
  readonly isTight: boolean;
  /**
   * Whether the credentials of clients are for this process alone: then none is among the headers
   * of a request.
   */
  readonly withholdsCredentials: boolean;
  /** A request has begun: its head is there, or what came is none, and `problem` says why. */
  onRequest(connection: ClientConnection, head: RequestHead | null, problem: GatewayError | null): void;
  /** An error that nobody expected; its connection is closed. */
  onDefect(error: unknown): void;
  /** The connection is gone. */
  onClosed(connection: ClientConnection): void;
}

/** Hears what becomes of the connection while a request has it. */
export interface ConnectionUser {
  /** The connection is gone, or its client is. */
  onLost(): void;
}

/** What the ingress looks at in a request's head, beside what HTTP itself is made of. */
const noted = [
  'x-request-id',
  'x-gateway-class',
  'x-gateway-fallback',
  'x-gateway-hops',
  'traceparent',
  'authorization',
  'x-api-key',
  'api-key',
  'cookie',
  'content-encoding',
  'content-type',
  'anthropic-version',
  'origin',
  'access-control-request-method',
  'access-control-request-headers',
];
/**
 * The next hop gets these from us: the length follows from the body, and bodies are whole, so
 * nothing is expected.
 */
const withheld = ['host', 'content-length', 'expect'];
const interest = new FieldInterest({ noted, withheld });
/** Where clients show keys of the gateway: nobody behind it gets them. */
const interestWithKeys = new FieldInterest({ noted, withheld: [...withheld, ...credentialHeaders] });

const noOctets = Buffer.alloc(0);
const headEnd = Buffer.from('\r\n\r\n');
/** Octets of further requests that are taken in while one is served; then the client has to wait. */
const maxAheadBytes = 65_536;
/**
 * How long a connection that is to close is read from, so that its client sees the answer before
 * the reset.
 */
const lingerMs = 2000;
/** A client that closes its side this soon after its request waits for the answer (RFC 9112 section 9.6). */
const halfCloseMs = 5;
/**
 * When a client that has closed its side with its request is probed, and the second time: fast
 * answers come first.
 */
const probeLateMs = 5;
const probeAgainMs = 20;
const continueHead = 'HTTP/1.1 100 Continue\r\n\r\n';

type Reading =
  /** Between requests, or within a head. */
  | 'head'
  /** The head is there, and nobody has asked for the body. */
  | 'unread'
  | 'body'
  /** The request is whole. */
  | 'whole'
  /** The last answer is given: what still comes is thrown away. */
  | 'lingering';

/**
 * One connection of a client: requests one after the other, never two at once. What a pipelining
 * client sends ahead waits. Strict: bytes whose framing is in doubt end the connection.
 */
export class ClientConnection {
  readonly #socket: Socket;
  readonly #host: ConnectionHost;
  #reading: Reading = 'head';
  /** Read and not used yet: the beginning of a head, or what follows one. */
  #ahead: Buffer | undefined;
  /** How much of `#ahead` was looked at when it was last found to be the beginning of a head. */
  #checkedBytes = 0;
  #paused = false;
  /** Within a request: from its first octet to the end of its answer. */
  #head: RequestHead | null = null;
  #user: ConnectionUser | undefined;
  #body: { reader: BodyReader; resolve(body: Buffer): void; reject(error: GatewayError): void } | undefined;
  #closeAfter = false;
  #committed = false;
  #gone = false;
  #inputEnded = false;
  #served = 0;
  /**
   * On the clock of `performance.now()`: when the present phase of reading began, the request
   * began, and octets last came.
   */
  #sinceMs = performance.now();
  #requestAtMs = 0;
  #readAtMs = 0;
  #uploadedAtCheck = 0;
  #stalling = false;
  /** Of what came in place of a request, and is no head. */
  #refused: Buffer = noOctets;
  /** Of a request of HTTP/1.0: runs while the end of the input would still belong to what came last. */
  #endTimer: NodeJS.Timeout | undefined;
  #onDrain: (() => void) | undefined;

  constructor(socket: Socket, host: ConnectionHost) {
    this.#socket = socket;
    this.#host = host;
    socket.on('data', (octets: Buffer) => this.#onData(octets));
    socket.on('end', () => this.#onEnd());
    socket.on('drain', () => this.#drained());
    socket.on('timeout', () => socket.destroy());
    // The close that follows says all there is to know.
    socket.on('error', () => {});
    socket.on('close', () => this.#onClose());
  }

  /** The address of the client, for limits and logs. */
  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? '';
  }

  /**
   * The `origin` of a request whose head was refused, where its line had come whole; who may read
   * the answer follows from it.
   */
  get refusedOrigin(): string | undefined {
    const text = this.#refused.toString('latin1');
    const lines = text.slice(text.indexOf('\n') + 1, text.lastIndexOf('\n') + 1);
    return HeaderLines.ofLines(lines).value('origin');
  }

  sender(proxies: TrustedProxies): Sender {
    return { address: this.remoteAddress, secure: 'encrypted' in this.#socket, proxies };
  }

  /** Whether the answer under way is the last one here: the head says so. */
  get willClose(): boolean {
    return this.#closeAfter || this.#host.closing || !this.#skipUnread() || this.#isLast;
  }

  /** Whether the last answer here let the client expect that it may send one more request. */
  get isPromised(): boolean {
    return this.#served > 1;
  }

  /** Nothing that is here after this request can be trusted to be one. */
  closeAfterAnswer(): void {
    this.#closeAfter = true;
  }

  get keepAliveMs(): number {
    return this.#host.limits.clientKeepAliveMs;
  }

  get isIdle(): boolean {
    return this.#reading === 'head' && this.#ahead === undefined;
  }

  /** Whether the client takes the answer slower than it comes. */
  get needsDrain(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** Who has the connection until `finished`. */
  use(user: ConnectionUser): void {
    this.#user = user;
  }

  /**
   * The body of the request, whole: at once when it came with its head. Throws, or rejects with,
   * `GatewayError`: `body_too_large`, `overloaded`, `invalid_request`, `request_timeout`, or
   * `client_closed` when the client leaves before it ends.
   */
  readBody(options: { maxBytes: number; holding: Holding }): Buffer | Promise<Buffer> {
    const head = this.#head;
    if (head === null || this.#reading !== 'unread') throw new Error('this body was read already');
    const reader = new BodyReader(head, options);
    if (head.expect !== undefined && !reader.done && this.#ahead === undefined) this.write(continueHead);
    this.#reading = 'body';
    const ahead = this.#ahead;
    this.#ahead = undefined;
    if (ahead !== undefined || reader.done) this.#feed(reader, ahead ?? noOctets);
    if (reader.done) return reader.body;
    if (this.#inputEnded) {
      this.#lose();
      throw leftEarly();
    }
    this.#resume();
    this.#uploadedAtCheck = 0;
    this.#sinceMs = performance.now();
    return new Promise((resolve, reject) => {
      this.#body = { reader, resolve, reject };
    });
  }

  /** @param text a character for each octet */
  write(text: string): void {
    if (!this.#gone) this.#socket.write(text, 'latin1');
  }

  /** `octets` must not change any more. */
  writeOctets(octets: Uint8Array): void {
    if (!this.#gone) this.#socket.write(octets);
  }

  /** Calls back once, when the client has caught up or is gone. */
  onDrain(callback: () => void): void {
    if (this.#gone || !this.#socket.writableNeedDrain) callback();
    else this.#onDrain = callback;
  }

  /** The answer has begun. */
  committed(): void {
    this.#committed = true;
  }

  /** Calls back once, when all that was written is with the kernel or the connection is gone. */
  onFlushed(callback: () => void): void {
    if (this.#gone || this.#socket.writableLength === 0) callback();
    else {
      this.#socket.write('', () => callback());
    }
  }

  /**
   * The answer is written. The next request may come, unless `close` or the head of the answer said
   * that none may.
   */
  finished(options: { close: boolean }): void {
    this.#user = undefined;
    if (this.#gone) return;
    if (options.close || this.#isLast) this.#linger();
    else this.#next();
  }

  /** Ends the connection in order after what was written, without an end of the answer. */
  cut(): void {
    this.#user = undefined;
    this.#socket.destroySoon();
  }

  /**
   * Ends the connection with a reset: where only the connection's end marks the end of an answer,
   * nobody takes what was written for a whole one.
   * @param afterMs how long the client has to take what was written: a reset throws away what is
   * under way
   */
  reset(afterMs: number): void {
    this.#user = undefined;
    const socket = this.#socket;
    this.onFlushed(() => {
      const timer = setTimeout(() => socket.resetAndDestroy(), afterMs);
      socket.once('close', () => clearTimeout(timer));
    });
  }

  /** Ends the connection at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  /**
   * Closes the connection if no request has it.
   * @param graceMs for how long its client may still use it after an answer that did not say it was the last
   */
  closeIdle(graceMs: number): void {
    if (!this.isIdle || this.#gone) return;
    if (this.#served === 0 || performance.now() - this.#sinceMs >= graceMs) this.#linger();
  }

  /** Called every half a second: enforces every limit in time. */
  check(nowMs: number): void {
    const { limits } = this.#host;
    if (this.#reading === 'lingering') {
      if (nowMs - this.#sinceMs > lingerMs) this.#socket.destroy();
    } else if (this.#reading === 'body') this.#checkUpload(nowMs);
    else if (this.#reading === 'head') this.#checkHead(nowMs, limits);
    this.#checkStall();
  }

  #checkHead(nowMs: number, limits: ClientLimits): void {
    if (this.#ahead !== undefined) {
      if (nowMs - this.#requestAtMs > limits.clientHeadersTimeoutMs)
        this.#refuseHead('request_timeout', lateMessage, this.#ahead);
    } else if (nowMs - this.#sinceMs > (this.#served > 0 ? limits.clientKeepAliveMs : limits.clientHeadersTimeoutMs)) {
      this.#linger();
    }
  }

  #checkUpload(nowMs: number): void {
    const { limits, isTight } = this.#host;
    const bytes = this.#body?.reader.bytes ?? 0;
    const windowMs = nowMs - this.#sinceMs;
    const late = nowMs - this.#requestAtMs > limits.clientRequestTimeoutMs;
    const still = isTight && nowMs - this.#readAtMs > tightStillMs;
    let slow = false;
    if (windowMs >= rateWindowMs) {
      slow = (bytes - this.#uploadedAtCheck) * 1000 < limits.clientMinUploadBytesPerS * windowMs;
      this.#sinceMs = nowMs;
      this.#uploadedAtCheck = bytes;
    }
    if (late || still || slow) this.#failBody(new GatewayError('request_timeout', lateMessage));
  }

  /**
   * A client that takes nothing of its answer for its time is given up; while it owes us nothing it
   * may be silent.
   */
  #checkStall(): void {
    const owes = this.#socket.writableLength > 0;
    if (owes === this.#stalling) return;
    this.#stalling = owes;
    // The socket itself sees each write that passes, also a part of one.
    this.#socket.setTimeout(owes ? this.#host.limits.clientStallTimeoutMs : 0);
  }

  /** One input costs its own connection at most, never the process. */
  #onData(octets: Buffer): void {
    try {
      this.#take(octets);
    } catch (error) {
      this.#host.onDefect(error);
      this.#socket.destroy();
    }
  }

  #take(octets: Buffer): void {
    this.#readAtMs = performance.now();
    switch (this.#reading) {
      case 'head':
        this.#takeHead(octets);
        break;
      case 'body':
        if (this.#body !== undefined) this.#takeBody(this.#body.reader, octets);
        break;
      case 'lingering':
        break;
      default:
        this.#keepAhead(octets);
    }
    if (this.#head?.minor === 0) this.#expectEnd();
  }

  /**
   * By turns of the event loop and not by the clock: an end that came with the request may have
   * waited for what that cost.
   */
  #expectEnd(): void {
    clearTimeout(this.#endTimer);
    const over = () => {
      if (this.#endTimer === timer) this.#endTimer = undefined;
    };
    const timer = setTimeout(() => setImmediate(over), halfCloseMs).unref();
    this.#endTimer = timer;
  }

  #keepAhead(octets: Buffer): void {
    this.#ahead = this.#ahead === undefined ? octets : Buffer.concat([this.#ahead, octets]);
    if (this.#ahead.length < maxAheadBytes || this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  #takeHead(octets: Buffer): void {
    if (this.#ahead === undefined) this.#requestAtMs = this.#readAtMs;
    const searchedFrom = Math.max(0, (this.#ahead?.length ?? 0) - headEnd.length);
    const all = this.#ahead === undefined ? octets : Buffer.concat([this.#ahead, octets]);
    const start = skipEmptyLines(all);
    const end = all.indexOf(headEnd, Math.max(start, searchedFrom));
    if (start === all.length) {
      // Nothing of a request: some clients end a body with an empty line.
      this.#ahead = undefined;
      return;
    }
    const { maxHeaderBytes } = this.#host.limits;
    if ((end < 0 ? all.length : end) - start > maxHeaderBytes) {
      this.#refuseHead(
        'headers_too_large',
        'the head of the request is too large',
        all.subarray(start, end < 0 ? all.length : end + 2),
      );
    } else if (end < 0) this.#waitForHead(all, start);
    else this.#parseHead(all, start, end);
  }

  get #interest(): FieldInterest {
    return this.#host.withholdsCredentials ? interestWithKeys : interest;
  }

  #waitForHead(all: Buffer, start: number): void {
    if (this.#inputEnded) {
      this.#linger();
      return;
    }
    this.#ahead = all;
    // Looking again each time would cost a client's octet more and more.
    if (all.length < 2 * this.#checkedBytes) return;
    this.#checkedBytes = all.length;
    if (mayBecomeRequest(all.toString('latin1', start), this.#interest)) return;
    this.#refuseHead('invalid_request', 'the request is not valid HTTP', all.subarray(start));
  }

  #parseHead(all: Buffer, start: number, end: number): void {
    this.#checkedBytes = 0;
    this.#ahead = end + headEnd.length < all.length ? all.subarray(end + headEnd.length) : undefined;
    let head: RequestHead;
    try {
      head = parseRequestHead(all.toString('latin1', start, end), this.#interest, {
        maxFields: this.#host.limits.maxHeaderCount,
      });
    } catch (error) {
      if (!(error instanceof InvalidHead)) throw error;
      const code = error.tooMany ? 'headers_too_large' : 'invalid_request';
      this.#refuseHead(code, error.message, all.subarray(start, end + 2));
      return;
    }
    this.#head = head;
    this.#closeAfter = head.minor === 1 ? head.close : !head.keepAlive;
    this.#reading = 'unread';
    const unexpected = head.expect !== undefined && head.expect !== '100-continue';
    const problem = unexpected ? new GatewayError('invalid_request', 'what the request expects cannot be had') : null;
    if (unexpected) this.#closeAfter = true;
    this.#begin(head, problem);
  }

  /** What came is no request, and nothing after it can be one. */
  #refuseHead(code: ErrorCode, message: string, octets: Buffer): void {
    this.#head = null;
    this.#closeAfter = true;
    this.#reading = 'whole';
    this.#ahead = undefined;
    this.#refused = octets;
    this.#begin(null, new GatewayError(code, message));
    this.#refused = noOctets;
  }

  #begin(head: RequestHead | null, problem: GatewayError | null): void {
    this.#served++;
    this.#committed = false;
    this.#host.onRequest(this, head, problem);
  }

  #takeBody(reader: BodyReader, octets: Buffer): void {
    try {
      this.#feed(reader, octets);
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
      this.#failBody(error);
      return;
    }
    if (!reader.done) return;
    const waiting = this.#body;
    this.#body = undefined;
    waiting?.resolve(reader.body);
  }

  #feed(reader: BodyReader, octets: Buffer): void {
    const end = reader.take(octets, 0);
    if (!reader.done) return;
    this.#reading = 'whole';
    if (end < octets.length) this.#keepAhead(octets.subarray(end));
  }

  /** The request cannot become whole any more. It is still answered. */
  #failBody(error: GatewayError): void {
    this.#closeAfter = true;
    this.#reading = 'unread';
    const waiting = this.#body;
    this.#body = undefined;
    waiting?.reject(error);
  }

  /**
   * Whether nothing of the request is yet to come, after a look at what is there: a small body that
   * nobody read is skipped.
   */
  #skipUnread(): boolean {
    if (this.#reading === 'unread' && this.#head !== null && !this.#head.chunked) {
      const length = Math.max(0, this.#head.contentLength);
      const ahead = this.#ahead ?? noOctets;
      if (length <= ahead.length) {
        this.#ahead = length < ahead.length ? ahead.subarray(length) : undefined;
        this.#reading = 'whole';
      }
    }
    return this.#reading === 'whole';
  }

  /** A client that has closed its side may have sent more requests before. */
  get #isLast(): boolean {
    return this.#inputEnded && this.#ahead === undefined;
  }

  #next(): void {
    this.#head = null;
    this.#reading = 'head';
    this.#checkedBytes = 0;
    this.#sinceMs = performance.now();
    const ahead = this.#ahead;
    this.#resume();
    if (ahead === undefined) return;
    // In a turn of its own: a client that pipelines must not keep others waiting.
    setImmediate(() => {
      if (this.#gone || this.#reading !== 'head') return;
      const all = this.#ahead;
      this.#ahead = undefined;
      if (all !== undefined) this.#onData(all);
    });
  }

  /**
   * Says that no more answers come, and reads on for a moment: unread octets would make the close a
   * reset.
   */
  #linger(): void {
    this.#reading = 'lingering';
    this.#ahead = undefined;
    this.#sinceMs = performance.now();
    this.#socket.end();
    if (this.#inputEnded) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** The client sends no more. It may have left, or wait for its answer: from here the two look the same. */
  #onEnd(): void {
    this.#inputEnded = true;
    if (this.#reading === 'head' || this.#reading === 'lingering') {
      this.#socket.end();
    } else if (this.#reading === 'body') {
      this.#failBody(leftEarly());
      this.#lose();
    } else if (this.#committed || this.#head?.minor !== 1) {
      const waits = !this.#committed && this.#endTimer !== undefined;
      if (!waits) this.#lose();
    } else this.#probe(performance.now() - this.#readAtMs <= halfCloseMs ? probeLateMs : 0);
  }

  /**
   * A client that is gone answers an octet with a reset, which a second write sees; one that waits
   * skips these heads.
   */
  #probe(delayMs: number): void {
    const again = () => {
      if (!this.#gone && !this.#committed) this.write(continueHead);
    };
    const first = () => {
      again();
      setTimeout(again, probeAgainMs).unref();
    };
    if (delayMs === 0) first();
    else setTimeout(first, delayMs).unref();
  }

  #lose(): void {
    const user = this.#user;
    this.#user = undefined;
    user?.onLost();
    this.#socket.destroy();
  }

  #drained(): void {
    const callback = this.#onDrain;
    this.#onDrain = undefined;
    callback?.();
  }

  #onClose(): void {
    this.#gone = true;
    this.#ahead = undefined;
    this.#host.onClosed(this);
    const waiting = this.#body;
    this.#body = undefined;
    waiting?.reject(leftEarly());
    this.#drained();
    const user = this.#user;
    this.#user = undefined;
    user?.onLost();
  }
}

const lateMessage = 'the request did not arrive in time';
function leftEarly(): GatewayError {
  return new GatewayError('client_closed', 'the client left before its request was whole');
}

/** Uploads are measured over so long. */
const rateWindowMs = 10_000;
/** An upload that stands still for so long makes room when the budget is tight. */
const tightStillMs = 2000;

/**
 * Behind the empty lines in front of a request, which some clients send after a body (RFC 9112
 * section 2.2).
 */
function skipEmptyLines(octets: Buffer): number {
  let at = 0;
  while (octets[at] === 0x0d && octets[at + 1] === 0x0a && at < maxEmptyLineBytes) at += 2;
  return at;
}

const maxEmptyLineBytes = 8;
