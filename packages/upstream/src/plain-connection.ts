import { connect, type Socket } from 'node:net';
import type { FieldInterest } from '@llm-gateway/http1';
import { AnswerReader, type AnswerTarget } from './answer-reader.ts';
import { classifyFailure, type FailureCause, failureOf, type UpstreamFailure } from './failure.ts';

/** What a connection carries: one request, and what becomes of its answer. */
export interface Carried extends AnswerTarget {
  /** Request line and header fields, with the empty line that ends them. */
  readonly head: string;
  readonly body: Uint8Array | null;
  /** Whether the answer has no body, whatever its head says. */
  readonly bodiless: boolean;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** The answer is whole. */
  onWhole(): void;
  /**
   * @param stale whether the connection was most likely being closed when the request was written
   * to it
   */
  onLost(failure: UpstreamFailure, stale: boolean): void;
}

/** What a connection reports to the pool that it belongs to. */
export interface ConnectionHolder {
  readonly host: string;
  readonly port: number;
  readonly connectTimeoutMs: number;
  readonly keepAliveMs: number;
  /** What is looked at in the heads of answers. */
  readonly interest: FieldInterest;
  /** It carries nothing now, and may be used again. */
  onFree(connection: PlainConnection): void;
  onClosed(connection: PlainConnection): void;
}

/**
 * All connections are read into this one. What is read is used up, or copied, before the next read:
 * Node calls back at once after each.
 */
const readBuffer = Buffer.allocUnsafeSlow(65_536);
/** A body up to here is joined with the head in one string: one write of one piece. */
const joinedBodyBytes = 16_384;
const tcpKeepAliveMs = 60_000;
/**
 * A request written to a connection that the engine was closing at that moment dies at once, though
 * nothing is wrong with the engine. After this time it is not that race.
 */
const staleConnectionMs = 100;
/** A server that says how long it keeps an idle connection begins to count before us. */
const keepAliveMarginMs = 1000;

/**
 * One connection to an HTTP/1.1 server, without TLS: one request at a time, kept open between them.
 */
export class PlainConnection {
  readonly #holder: ConnectionHolder;
  readonly #socket: Socket;
  readonly #reader: AnswerReader;
  #carried: Carried | undefined;
  #connected = false;
  #closed = false;
  #paused = false;
  /** Answers that it has carried to their ends. */
  #answers = 0;
  #writtenAtMs = 0;
  /** When it has to be connected, to have a head, or to be used again. */
  #deadlineMs = 0;
  /**
   * The first look that found nothing new within a body; undefined when something came since the
   * last look.
   */
  #quietSinceMs: number | undefined;

  constructor(holder: ConnectionHolder) {
    this.#holder = holder;
    this.#reader = new AnswerReader(holder.interest);
    this.#socket = connect({
      host: holder.host,
      port: holder.port,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: tcpKeepAliveMs,
      onread: { buffer: readBuffer, callback: (length) => this.#read(length) },
    });
    this.#socket.on('connect', () => this.#onConnect());
    this.#socket.on('error', (error) => this.#lose(error));
    this.#socket.on('end', () => this.#onEnd());
    this.#socket.on('close', () => this.#lose(undefined));
  }

  /** Whether it may be used now; not when the server is about to close it. */
  isUsable(nowMs: number): boolean {
    return !this.#closed && nowMs < this.#deadlineMs;
  }

  /**
   * Takes a request, and writes it when this turn of the event loop ends. Only for a connection
   * that carries none.
   * @param now monotonic milliseconds
   */
  carry(carried: Carried, now: number): void {
    this.#carried = carried;
    this.#reader.begin(carried.bodiless);
    this.#writtenAtMs = now;
    this.#deadlineMs = now + (this.#connected ? carried.headersTimeoutMs : this.#holder.connectTimeoutMs);
    writeAtEndOfTurn(this);
  }

  /** Writes the request that it carries. */
  write(): void {
    if (this.#carried === undefined) return;
    const { head, body } = this.#carried;
    const socket = this.#socket;
    if (body === null || body.length === 0) {
      socket.write(head, 'latin1');
    } else if (body.length <= joinedBodyBytes) {
      socket.write(head + bufferOf(body).toString('latin1'), 'latin1');
    } else {
      socket.cork();
      socket.write(head, 'latin1');
      socket.write(body);
      socket.uncork();
    }
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#quietSinceMs = undefined;
    if (!this.#closed) this.#socket.resume();
  }

  /** Closes it at once; its call receives nothing more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#carried = undefined;
    // At the end of this turn, after what follows from the close: a process of Node 26.10 that went
    // on to end was seen to spin at its exit (`Environment::CleanupHandles`) when its socket was
    // destroyed here and now.
    setImmediate(() => this.#socket.destroy());
    this.#holder.onClosed(this);
  }

  /** Closes it and fails its call. */
  fail(failure: UpstreamFailure, stale = false): void {
    const carried = this.#carried;
    this.close();
    carried?.onLost(failure, stale);
  }

  /**
   * Enforces its time limits; called every now and then. A limit is never applied early, and late
   * by two calls at most.
   */
  check(nowMs: number): void {
    if (this.#carried !== undefined && this.#reader.headSeen) this.#checkSilence(this.#carried, nowMs);
    else if (nowMs < this.#deadlineMs) return;
    else if (this.#carried === undefined) this.close();
    else this.fail(failureOf(this.#connected ? 'headers_timeout' : 'connect_timeout'));
  }

  #checkSilence({ idleTimeoutMs }: Carried, nowMs: number): void {
    // It is the client that is slow, which has a limit of its own.
    if (this.#paused) return;
    if (this.#quietSinceMs === undefined) this.#quietSinceMs = nowMs;
    else if (nowMs - this.#quietSinceMs >= idleTimeoutMs) this.fail(failureOf('idle_timeout'));
  }

  #onConnect(): void {
    this.#connected = true;
    const now = performance.now();
    this.#writtenAtMs = now;
    if (this.#carried !== undefined) this.#deadlineMs = now + this.#carried.headersTimeoutMs;
  }

  /** False stops the reading. */
  #read(length: number): boolean {
    const carried = this.#carried;
    if (carried === undefined) {
      // Unexpected bytes: the next answer would be mistaken for another one.
      this.close();
      return false;
    }
    this.#quietSinceMs = undefined;
    try {
      const reading = this.#reader.read(readBuffer, length, carried);
      // Given up by what took it.
      if (this.#carried !== carried) return false;
      if (reading === 'whole') this.#onWhole(carried);
      else if (reading !== 'more') this.fail(failureOf(reading));
    } catch (error) {
      // What a reader of one answer throws must not end the other answers.
      this.fail(failureOf('protocol', error));
    }
    return !this.#paused;
  }

  #onWhole(carried: Carried): void {
    this.#answers++;
    this.#carried = undefined;
    // The answer may have overtaken the request: then the server is likely to close.
    const idleMs = this.#idleMs();
    if (!this.#reader.reusable || this.#socket.writableLength > 0 || idleMs <= 0) this.close();
    else {
      if (this.#paused) this.resume();
      this.#deadlineMs = performance.now() + idleMs;
      this.#holder.onFree(this);
    }
    carried.onWhole();
  }

  #idleMs(): number {
    const { keepAliveMs } = this.#reader;
    if (keepAliveMs === undefined) return this.#holder.keepAliveMs;
    return Math.min(this.#holder.keepAliveMs, keepAliveMs - keepAliveMarginMs);
  }

  /** The server closed the connection in order. */
  #onEnd(): void {
    const carried = this.#carried;
    if (carried === undefined || !this.#reader.endsWithConnection) {
      this.#lose(undefined);
      return;
    }
    this.close();
    carried.onWhole();
  }

  #lose(error: Error | undefined): void {
    if (this.#closed) return;
    if (!this.#connected) this.fail(classifyFailure(error, { connected: false, headSeen: false }));
    else this.fail(failureOf(this.#lossCause(), error), this.#isStale(error));
  }

  #lossCause(): FailureCause {
    return this.#reader.headSeen ? 'truncated' : 'reset';
  }

  /**
   * It carried an answer before, and the server closed it just as this request was written to it:
   * nothing came since.
   */
  #isStale(error: Error | undefined): boolean {
    const inOrder = error === undefined || ('code' in error && error.code === 'EPIPE');
    return (
      inOrder && this.#answers > 0 && !this.#reader.begun && performance.now() - this.#writtenAtMs < staleConnectionMs
    );
  }
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

let due: PlainConnection[] = [];

/**
 * Requests of one turn are written one after the other: their engines are woken once, and stay
 * awake.
 */
function writeAtEndOfTurn(connection: PlainConnection): void {
  if (due.length === 0) setImmediate(writeAll);
  due.push(connection);
}

function writeAll(): void {
  const all = due;
  due = [];
  for (const connection of all) connection.write();
}
