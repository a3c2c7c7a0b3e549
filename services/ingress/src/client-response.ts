import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, errorBody, errorCodes, type FinishReason } from '@llm-gateway/protocol';
import { type FlatHeaders, headerValue } from '@llm-gateway/upstream';
import type { Stalled, StallWatch } from './stall-watch.ts';

/** Names that an upstream's answer must not set: the gateway answers them itself. */
export const ownResponseHeaders: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-gateway-route',
  'x-gateway-endpoint',
  'x-gateway-attempts',
]);

const lingerMs = 2000;
const lastChunk = Buffer.from('0\r\n\r\n');
const crlf = Buffer.from('\r\n');

/**
 * The client's side of one request, and the one place that commits: from the first byte written here nothing is tried again.
 *
 * The head is held until the first body byte (or the end) is there, so that an upstream that dies between the two can still be replaced.
 * Chunks are framed here and written to the socket in one piece each: Node's own framing costs three writes and a tick per chunk.
 */
export class ClientResponse implements Stalled {
  readonly #response: ServerResponse;
  readonly #stalls: StallWatch;
  #head: { status: number; headers: FlatHeaders } | undefined;
  #chunked = false;
  #eventStream = false;
  #headOut = false;
  /** The last bytes sent, to know whether an event was left open. */
  #tail: Buffer = crlf;
  #onDrain: (() => void) | undefined;
  committed = false;
  status = 0;
  bodyBytes = 0;
  committedAtMs = 0;
  /** Called once when the first byte goes out. */
  onCommit: (() => void) | undefined;
  /** Set while somebody wants to know it: sees the bytes of the answer as they pass. */
  finishReason: FinishReason | undefined;

  stalledSinceMs = 0;

  constructor(response: ServerResponse, stalls: StallWatch) {
    this.#response = response;
    this.#stalls = stalls;
  }

  /** Takes the head of the answer that is about to be relayed; replaces one that was never committed. */
  prepare(status: number, headers: FlatHeaders): void {
    this.#head = { status, headers };
  }

  /**
   * Sends one chunk as it is. False when the client takes it slower than it comes: `onDrain` is called once when it has caught up.
   */
  write(chunk: Buffer, onDrain: () => void): boolean {
    if (!this.committed) this.#commit();
    this.bodyBytes += chunk.length;
    this.finishReason?.take(chunk);
    if (this.#eventStream) this.#tail = chunk.length >= 4 ? chunk : Buffer.concat([this.#tail.subarray(-4), chunk]);
    if (chunk.length === 0) return true;
    const taken = this.#send(this.#chunked ? frame(chunk) : chunk);
    if (!taken && this.#onDrain === undefined) this.#waitForDrain(onDrain);
    return taken;
  }

  /** The answer is whole. */
  end(): void {
    if (!this.committed) this.#commit();
    this.#response.end(this.#chunked ? lastChunk : undefined);
  }

  /** A whole answer at once; its length is told by `body`, whatever `headers` say. */
  answer(status: number, headers: FlatHeaders, body: Buffer): void {
    const response = this.#response;
    this.#start(status);
    this.bodyBytes = body.length;
    this.finishReason?.take(body);
    const head = ['content-length', String(body.length)];
    for (let i = 0; i + 1 < headers.length; i += 2) {
      if (headers[i]?.toLowerCase() !== 'content-length') head.push(headers[i] as string, headers[i + 1] as string);
    }
    if (response.req.complete) {
      response.writeHead(status, head);
      response.end(body);
      return;
    }
    // The client is still sending. It gets the answer now, and the connection stays open a moment for it to be read:
    // closing on unread bytes resets the connection, and the answer is lost with it.
    response.writeHead(status, [...head, 'connection', 'close']);
    response.write(body);
    const finish = () => {
      clearTimeout(timer);
      response.req.off('end', finish);
      response.end();
    };
    const timer = setTimeout(finish, lingerMs);
    response.req.on('end', finish).resume();
    response.on('close', () => clearTimeout(timer));
  }

  /** A truthful error in the OpenAI shape, before anything was committed. */
  refuse(code: ErrorCode, message: string, options: { param?: string | null; headers?: FlatHeaders } = {}): void {
    const body = Buffer.from(JSON.stringify(errorBody(code, message, options.param ?? null)));
    this.answer(errorCodes[code].status, ['content-type', 'application/json', ...(options.headers ?? [])], body);
  }

  /**
   * The answer broke after it was committed. An event stream says so in one last event; in any case the connection closes
   * without the mark of a proper end, so that nobody takes a cut answer for a whole one.
   */
  breakOff(code: ErrorCode, message: string): void {
    const socket = this.#response.socket;
    if (socket === null || this.#response.writableEnded) {
      this.#response.destroy();
      return;
    }
    if (this.#eventStream) {
      const event = Buffer.from(
        `${endsEvent(this.#tail) ? '' : '\n\n'}data: ${JSON.stringify(errorBody(code, message))}\n\n`,
      );
      this.#send(this.#chunked ? frame(event) : event);
    }
    socket.destroySoon();
  }

  #commit(): void {
    const { status, headers } = this.#head ?? { status: 200, headers: [] };
    this.#start(status);
    const response = this.#response;
    const hasBody = status !== 204 && status !== 304 && response.req.method !== 'HEAD';
    const http11 = response.req.httpVersionMajor === 1 && response.req.httpVersionMinor >= 1;
    this.#chunked = hasBody && http11 && headerValue(headers, 'content-length') === undefined;
    this.#eventStream =
      (headerValue(headers, 'content-type') ?? '').startsWith('text/event-stream') &&
      headerValue(headers, 'content-encoding') === undefined;
    response.writeHead(status, this.#chunked ? [...headers, 'transfer-encoding', 'chunked'] : headers);
    // Node has announced chunked encoding by now; the frames are ours.
    response.chunkedEncoding = false;
  }

  #start(status: number): void {
    this.committed = true;
    this.status = status;
    this.committedAtMs = performance.now();
    this.onCommit?.();
  }

  /** Past the head, straight to the socket: `ServerResponse.write` corks it and schedules an uncork for every chunk. */
  #send(bytes: Buffer): boolean {
    const socket: Socket | null = this.#response.socket;
    if (this.#headOut && socket !== null) return socket.write(bytes);
    this.#headOut = true;
    return this.#response.write(bytes);
  }

  #waitForDrain(onDrain: () => void): void {
    const source = this.#response.socket ?? this.#response;
    const caughtUp = () => {
      this.#onDrain = undefined;
      this.#stalls.end(this);
      source.off('drain', caughtUp).off('close', caughtUp);
      onDrain();
    };
    this.#onDrain = caughtUp;
    this.stalledSinceMs = performance.now();
    this.#stalls.begin(this);
    source.on('drain', caughtUp).on('close', caughtUp);
  }

  /** The client has not taken anything for too long. */
  giveUp(): void {
    this.#response.destroy();
  }
}

/** One chunk of the chunked transfer coding (RFC 9112 section 7.1) in one buffer. */
function frame(chunk: Buffer): Buffer {
  const size = chunk.length.toString(16);
  const framed = Buffer.allocUnsafe(size.length + chunk.length + 4);
  framed.write(size, 0, 'latin1');
  crlf.copy(framed, size.length);
  chunk.copy(framed, size.length + 2);
  crlf.copy(framed, size.length + 2 + chunk.length);
  return framed;
}

/** Whether an event stream that ended with these bytes has no event open (an empty line, in any of the three line endings). */
function endsEvent(tail: Buffer): boolean {
  const text = tail.subarray(-4).toString('latin1');
  return text.endsWith('\n\n') || text.endsWith('\r\r') || text.endsWith('\n\r\n') || text === '\r\n';
}
