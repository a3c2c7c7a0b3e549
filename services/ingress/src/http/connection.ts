import type { Socket } from 'node:net';
import type { RequestHead } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import type { Holding } from '../body/body-budget.ts';
import { BodyReader } from './body-reader.ts';
import { ConnectionOutput } from './connection-output.ts';
import type { Sender, TrustedProxies } from './forwarded.ts';
import { continueHead, HalfClose } from './half-close.ts';
import { HeadReader, RefusedHead } from './head-reader.ts';
import type { ClientLimits } from './options.ts';
import { ReadAhead } from './read-ahead.ts';
import { lateError, lateMessage, Upload } from './upload.ts';

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
  /** A request has begun: its head arrived, or what arrived is invalid, and `problem` says why. */
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

const noOctets = Buffer.alloc(0);
/**
 * How long a connection that is to close is read from, so that its client sees the answer before
 * the reset.
 */
const lingerMs = 2000;

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
  /** What answers are written to. */
  readonly output: ConnectionOutput;
  readonly #socket: Socket;
  readonly #host: ConnectionHost;
  readonly #heads: HeadReader;
  readonly #halfClose: HalfClose;
  readonly #upload = new Upload();
  readonly #ahead: ReadAhead;
  #reading: Reading = 'head';
  /** Within a request: from its first octet to the end of its answer. */
  #head: RequestHead | null = null;
  #user: ConnectionUser | undefined;
  #closeAfter = false;
  #committed = false;
  #inputEnded = false;
  #served = 0;
  /**
   * On the clock of `performance.now()`: when the present phase of reading began, the request
   * began, and octets last came.
   */
  #sinceMs = performance.now();
  #requestAtMs = 0;
  #readAtMs = 0;
  /** What came in place of the request that now begins. */
  #refused: RefusedHead | undefined;

  constructor(socket: Socket, host: ConnectionHost) {
    this.#socket = socket;
    this.#host = host;
    this.output = new ConnectionOutput(socket, { stallTimeoutMs: host.limits.clientStallTimeoutMs });
    this.#heads = new HeadReader(host.limits, host);
    this.#halfClose = new HalfClose(this.output);
    this.#ahead = new ReadAhead(socket);
    socket.on('data', (octets: Buffer) => this.#onData(octets));
    socket.on('end', () => this.#onEnd());
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
    return this.#refused?.origin;
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
    return this.#reading === 'head' && this.#ahead.octets === undefined;
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
    this.#reading = 'body';
    const ahead = this.#ahead.take();
    if (head.expect !== undefined && !reader.done && ahead === undefined) this.output.write(continueHead);
    if (ahead !== undefined || reader.done) this.#feed(reader, ahead ?? noOctets);
    if (reader.done) return reader.body;
    if (this.#inputEnded) {
      this.#lose();
      throw leftEarly();
    }
    this.#ahead.resume();
    return this.#upload.wait(reader);
  }

  /** The answer has begun. */
  committed(): void {
    this.#committed = true;
  }

  /**
   * The answer is written. The next request may come, unless `close` or the head of the answer said
   * that none may.
   */
  finished(options: { close: boolean }): void {
    this.#user = undefined;
    if (this.output.gone) return;
    if (options.close || this.#isLast) this.#linger();
    else this.#next();
  }

  /** Closes the connection cleanly after the written data, without ending the answer. */
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
    this.output.onFlushed(() => {
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
    if (!this.isIdle || this.output.gone) return;
    if (this.#served === 0 || performance.now() - this.#sinceMs >= graceMs) this.#linger();
  }

  /** Called every half a second: enforces every limit in time. */
  check(nowMs: number): void {
    if (this.#reading === 'lingering') {
      if (nowMs - this.#sinceMs > lingerMs) this.#socket.destroy();
    } else if (this.#reading === 'body') this.#checkUpload(nowMs);
    else if (this.#reading === 'head') this.#checkHead(nowMs);
    this.output.checkStall();
  }

  #checkHead(nowMs: number): void {
    const { limits } = this.#host;
    const begun = this.#ahead.octets;
    if (begun !== undefined) {
      if (nowMs - this.#requestAtMs > limits.clientHeadersTimeoutMs)
        this.#refuseHead(new RefusedHead('request_timeout', lateMessage, begun));
    } else if (nowMs - this.#sinceMs > (this.#served > 0 ? limits.clientKeepAliveMs : limits.clientHeadersTimeoutMs)) {
      this.#linger();
    }
  }

  #checkUpload(nowMs: number): void {
    const { limits, isTight } = this.#host;
    const times = { nowMs, requestAtMs: this.#requestAtMs, readAtMs: this.#readAtMs };
    if (this.#upload.isLate(times, limits, isTight)) this.#failBody(lateError());
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
        if (this.#upload.reader !== undefined) this.#takeBody(this.#upload.reader, octets);
        break;
      case 'lingering':
        break;
      default:
        this.#ahead.keep(octets);
    }
    if (this.#head?.minor === 0) this.#halfClose.expect();
  }

  #takeHead(octets: Buffer): void {
    if (this.#ahead.octets === undefined) this.#requestAtMs = this.#readAtMs;
    const readBytes = this.#ahead.length;
    const all = this.#ahead.with(octets);
    const head = this.#heads.read(all, readBytes);
    if (head === 'none') this.#ahead.take();
    else if (head === 'partial') this.#waitForHead(all);
    else if (head instanceof RefusedHead) this.#refuseHead(head);
    else this.#takeRequest(head, all);
  }

  #waitForHead(all: Buffer): void {
    if (this.#inputEnded) {
      this.#linger();
      return;
    }
    this.#ahead.octets = all;
    const refused = this.#heads.checkPartial(all);
    if (refused !== null) this.#refuseHead(refused);
  }

  #takeRequest(head: RequestHead, all: Buffer): void {
    this.#ahead.keepFrom(all, this.#heads.end);
    this.#head = head;
    this.#closeAfter = head.minor === 1 ? head.close : !head.keepAlive;
    this.#reading = 'unread';
    const unexpected = head.expect !== undefined && head.expect !== '100-continue';
    const problem = unexpected
      ? new GatewayError('invalid_request', 'the value of the `expect` header is not supported')
      : null;
    if (unexpected) this.#closeAfter = true;
    this.#begin(head, problem);
  }

  /** What came is no request, and nothing after it can be one. */
  #refuseHead(refused: RefusedHead): void {
    this.#head = null;
    this.#closeAfter = true;
    this.#reading = 'whole';
    this.#ahead.take();
    this.#refused = refused;
    this.#begin(null, refused.problem);
    this.#refused = undefined;
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
    if (reader.done) this.#upload.done();
  }

  #feed(reader: BodyReader, octets: Buffer): void {
    const end = reader.take(octets, 0);
    if (!reader.done) return;
    this.#reading = 'whole';
    if (end < octets.length) this.#ahead.keep(octets.subarray(end));
  }

  /** The request cannot become whole any more. It is still answered. */
  #failBody(error: GatewayError): void {
    this.#closeAfter = true;
    this.#reading = 'unread';
    this.#upload.fail(error);
  }

  /**
   * Whether nothing of the request is yet to come, after a look at what is there: a small body that
   * nobody read is skipped.
   */
  #skipUnread(): boolean {
    if (this.#reading === 'unread' && this.#head !== null && !this.#head.chunked) {
      const length = Math.max(0, this.#head.contentLength);
      const ahead = this.#ahead.octets ?? noOctets;
      if (length <= ahead.length) {
        this.#ahead.keepFrom(ahead, length);
        this.#reading = 'whole';
      }
    }
    return this.#reading === 'whole';
  }

  /** A client that has closed its side may have sent more requests before. */
  get #isLast(): boolean {
    return this.#inputEnded && this.#ahead.octets === undefined;
  }

  #next(): void {
    this.#head = null;
    this.#reading = 'head';
    this.#heads.begin();
    this.#sinceMs = performance.now();
    this.#ahead.resume();
    if (this.#ahead.octets === undefined) return;
    // In a turn of its own: a client that pipelines must not keep others waiting.
    setImmediate(() => {
      if (this.output.gone || this.#reading !== 'head') return;
      const all = this.#ahead.take();
      if (all !== undefined) this.#onData(all);
    });
  }

  /**
   * Says that no more answers come, and reads on for a moment: unread octets would make the close a
   * reset.
   */
  #linger(): void {
    this.#reading = 'lingering';
    this.#ahead.take();
    this.#sinceMs = performance.now();
    this.#socket.end();
    if (!this.#inputEnded) this.#ahead.resume();
  }

  /**
   * The client sends no more. It may have left, or wait for its answer: from here the two look the
   * same.
   */
  #onEnd(): void {
    this.#inputEnded = true;
    if (this.#reading === 'head' || this.#reading === 'lingering') {
      this.#socket.end();
    } else if (this.#reading === 'body') {
      this.#failBody(leftEarly());
      this.#lose();
    } else if (this.#committed || this.#head?.minor !== 1) {
      const waits = !this.#committed && this.#halfClose.expected;
      if (!waits) this.#lose();
    } else this.#halfClose.probe(performance.now() - this.#readAtMs, () => this.#committed);
  }

  #lose(): void {
    const user = this.#user;
    this.#user = undefined;
    user?.onLost();
    this.#socket.destroy();
  }

  #onClose(): void {
    this.#ahead.take();
    this.#host.onClosed(this);
    this.#upload.fail(leftEarly());
    this.output.close();
    const user = this.#user;
    this.#user = undefined;
    user?.onLost();
  }
}

function leftEarly(): GatewayError {
  return new GatewayError('client_closed', 'the client left before its request was complete');
}
