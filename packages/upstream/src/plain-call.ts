import type { ChunkWalk, HeaderLines } from '@llm-gateway/http1';
import type { ResponseHead, ResponseSink, UpstreamCall } from './call.ts';
import type { ConnectionPool, PoolUser } from './connection-pool.ts';
import type { UpstreamFailure } from './failure.ts';
import type { PlainConnection } from './plain-connection.ts';
import { isBrokenEnd, TerminalEvent } from './terminal-event.ts';

/** A request, ready to be written. */
export interface PlainRequest {
  readonly head: string;
  readonly body: Uint8Array | null;
  readonly bodiless: boolean;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly once: boolean;
}

/**
 * One call over a connection of a pool; passes the answer to its sink until it ends or is aborted.
 */
export class PlainCall implements UpstreamCall, PoolUser {
  readonly #pool: ConnectionPool;
  readonly #sink: ResponseSink;
  head: string;
  body: Uint8Array | null;
  readonly bodiless: boolean;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  #once: boolean;
  #connection: PlainConnection | undefined;
  #over = false;
  #events: TerminalEvent | undefined;

  constructor(pool: ConnectionPool, request: PlainRequest, sink: ResponseSink) {
    this.#pool = pool;
    this.#sink = sink;
    this.head = request.head;
    this.body = request.body;
    this.bodiless = request.bodiless;
    this.headersTimeoutMs = request.headersTimeoutMs;
    this.idleTimeoutMs = request.idleTimeoutMs;
    this.#once = request.once;
    pool.take(this);
  }

  abort(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#connection === undefined) this.#pool.forget(this);
    else this.#connection.close();
  }

  resume(): void {
    if (!this.#over) this.#connection?.resume();
  }

  onCarrier(connection: PlainConnection): void {
    this.#connection = connection;
  }

  onInformation(headers: HeaderLines): void {
    if (!this.#over) this.#sink.onInformation?.(headers);
  }

  onHead(head: ResponseHead): void {
    if (this.#over) return;
    // It is not written again: what it holds is not needed while the answer comes.
    this.head = '';
    this.body = null;
    this.#events = TerminalEvent.of(head.headers);
    this.#sink.onHead(head);
  }

  onBytes(bytes: Buffer, from: number, to: number): void {
    if (this.#over) return;
    this.#events?.take(bytes, from, to);
    this.#paced(this.#sink.onData(bytes.subarray(from, to)));
  }

  onChunks(bytes: Buffer, from: number, to: number, walk: ChunkWalk): void {
    if (this.#over) return;
    const { parts } = walk;
    if (this.#events !== undefined) {
      for (let i = 0; i < parts.length; i += 2) {
        this.#events.take(bytes, parts[i] as number, parts[i + 1] as number);
      }
    }
    const sink = this.#sink;
    const isWhole = walk.plain && walk.startedAtBoundary && walk.boundary === to;
    if (isWhole && sink.takesFramed === true && sink.onFramed !== undefined) {
      this.#paced(sink.onFramed(bytes.subarray(from, to), walk.payload, walk.done));
    } else {
      this.#paced(sink.onData(dataOf(bytes, parts)));
    }
  }

  onWhole(): void {
    if (this.#over) return;
    this.#over = true;
    this.#sink.onEnd();
  }

  onLost(failure: UpstreamFailure, stale: boolean): void {
    if (this.#over) return;
    if (stale && !this.#once) {
      this.#once = true;
      this.#connection = undefined;
      this.#sink.onRepeat?.();
      // Or it was given up meanwhile.
      if (!this.#over) this.#pool.take(this);
      return;
    }
    this.#over = true;
    if (this.#events?.seen === true && isBrokenEnd(failure.cause)) this.#sink.onEnd();
    else this.#sink.onFailure(failure);
  }

  #paced(goesOn: boolean): void {
    if (!goesOn && !this.#over) this.#connection?.pause();
  }
}

/** The data of chunks in one piece: the later parts are moved up to the first one. */
function dataOf(bytes: Buffer, parts: readonly number[]): Buffer {
  const start = parts[0] as number;
  let end = parts[1] as number;
  for (let i = 2; i < parts.length; i += 2) {
    const from = parts[i] as number;
    const to = parts[i + 1] as number;
    bytes.copyWithin(end, from, to);
    end += to - from;
  }
  return bytes.subarray(start, end);
}
