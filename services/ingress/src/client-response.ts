import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type FlatHeaders, headerValue } from '@llm-gateway/http1';
import { type ErrorCode, errorBody, errorCodes, type FinishReason } from '@llm-gateway/protocol';
import { type Flushable, flushAtEndOfTurn } from './turn.ts';

/** Names that an upstream's answer must not set: the gateway answers them itself. */
export const ownResponseHeaders: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-gateway-route',
  'x-gateway-endpoint',
  'x-gateway-attempts',
]);

const lingerMs = 2000;
/** A chunk up to here is joined with what else leaves in this turn; a larger one is not worth the copy. */
const joinedBytes = 16_384;
/** Bytes of one answer that may wait for the end of a turn. */
const maxWaitingBytes = 262_144;

/**
 * The client's side of one request, and the one place that commits: from the first byte written here nothing is tried again.
 *
 * The head is held until the first body byte (or the end) is there, so that an upstream that dies between the two can still be replaced.
 * Chunks are framed here, past `ServerResponse.write`, which takes three writes and a tick for each; and as Latin-1 text, which stands for
 * the same bytes, because Node joins text with text and sends it in one plain write.
 */
export class ClientResponse implements Flushable {
  readonly #response: ServerResponse;
  #head: { status: number; headers: FlatHeaders } | undefined;
  #chunked = false;
  /** Neither chunked nor with a length, as for an HTTP/1.0 client: only the connection's end says where the body ends. */
  #endUnmarked = false;
  #eventStream = false;
  #headOut = false;
  /** What leaves when this turn ends. */
  #waiting = '';
  #ended = false;
  #flushDue = false;
  /** The last bytes of an event stream, to know whether an event was left open. */
  #tail = '';
  #onDrain: (() => void) | undefined;
  #awaitsDrain = false;
  committed = false;
  status = 0;
  bodyBytes = 0;
  committedAtMs = 0;
  /** Called once when the first byte goes out. */
  onCommit: (() => void) | undefined;
  /** Set while somebody wants to know it: sees the bytes of the answer as they pass. */
  finishReason: FinishReason | undefined;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.on('timeout', giveUpStalled);
  }

  /** Takes the head of the answer that is about to be relayed; replaces one that was never committed. */
  prepare(status: number, headers: FlatHeaders): void {
    this.#head = { status, headers };
  }

  /**
   * Sends one chunk as it is, when this turn ends. False when the client takes it slower than it comes: `onDrain` is called once when it has
   * caught up.
   */
  write(chunk: Buffer, onDrain: () => void): boolean {
    if (chunk.length === 0) return true;
    if (!this.committed) this.#commit();
    this.bodyBytes += chunk.length;
    this.finishReason?.take(chunk);
    if (chunk.length <= joinedBytes) this.#add(this.#chunked ? frame(chunk) : chunk.toString('latin1'));
    else this.#sendLarge(chunk);
    if (this.#eventStream)
      this.#tail = (this.#tail + chunk.toString('latin1', Math.max(0, chunk.length - 4))).slice(-4);
    if (this.#waiting.length <= maxWaitingBytes && !this.#outlet.writableNeedDrain) return true;
    this.#onDrain ??= onDrain;
    // A large chunk whose length was told by the head left at once: no flush follows that would see to it.
    if (!this.#flushDue) this.#waitForDrain(this.#onDrain);
    return false;
  }

  /** The answer is whole. */
  end(): void {
    if (!this.committed) this.#commit();
    this.#ended = true;
    this.#add(this.#chunked ? '0\r\n\r\n' : '');
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
      const event = `${endsEvent(this.#tail) ? '' : '\n\n'}data: ${JSON.stringify(errorBody(code, message))}\n\n`;
      this.#add(this.#chunked ? frame(Buffer.from(event)) : event);
    }
    this.flush();
    if (this.#endUnmarked) this.#reset(socket);
    else socket.destroySoon();
  }

  /** In order, the connection's end would be the mark of a proper end. */
  #reset(socket: Socket): void {
    socket.write('', () => {
      // With the kernel is not with the client yet, and a reset throws away what is under way. That must not be the error event.
      const timer = setTimeout(() => socket.resetAndDestroy(), this.#eventStream ? lingerMs : 0);
      socket.once('close', () => clearTimeout(timer));
    });
  }

  /** Sends what waits. The end of the turn calls it; see `flushAtEndOfTurn`. */
  flush(): void {
    this.#flushDue = false;
    if (this.#waiting !== '' || !this.#headOut) {
      const text = this.#waiting;
      this.#waiting = '';
      this.#send(text, 'latin1');
    }
    // The head and a small body have left in one write by now, so that this one has nothing more to send.
    if (this.#ended) this.#response.end();
    else if (this.#onDrain !== undefined) this.#waitForDrain(this.#onDrain);
  }

  #commit(): void {
    const { status, headers } = this.#head ?? { status: 200, headers: [] };
    this.#start(status);
    const response = this.#response;
    const hasBody = status !== 204 && status !== 304 && response.req.method !== 'HEAD';
    const http11 = response.req.httpVersionMajor === 1 && response.req.httpVersionMinor >= 1;
    const lengthTold = headerValue(headers, 'content-length') !== undefined;
    this.#chunked = hasBody && http11 && !lengthTold;
    this.#endUnmarked = hasBody && !http11 && !lengthTold;
    this.#eventStream =
      /^text\/event-stream/i.test(headerValue(headers, 'content-type') ?? '') &&
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

  /** What holds the bytes that are under way: the response itself while an earlier one of a pipelining client has the socket. */
  get #outlet(): ServerResponse | Socket {
    return this.#response.socket ?? this.#response;
  }

  #add(text: string): void {
    this.#waiting += text;
    if (this.#flushDue) return;
    this.#flushDue = true;
    flushAtEndOfTurn(this);
  }

  #sendLarge(chunk: Buffer): void {
    if (this.#chunked) this.#waiting += `${chunk.length.toString(16)}\r\n`;
    this.flush();
    this.#send(chunk);
    if (this.#chunked) this.#add('\r\n');
  }

  #send(bytes: Buffer | string, encoding: BufferEncoding = 'latin1'): void {
    const response = this.#response;
    if (this.#headOut && response.socket !== null) {
      response.socket.write(bytes, encoding);
      return;
    }
    this.#headOut = true;
    response.write(bytes, encoding);
    // It corked the socket until the next tick, to join this with writes that come from here in one piece anyway.
    response.socket?.uncork();
  }

  #waitForDrain(onDrain: () => void): void {
    const outlet = this.#outlet;
    if (!outlet.writableNeedDrain) {
      this.#onDrain = undefined;
      onDrain();
      return;
    }
    if (this.#awaitsDrain) return;
    const caughtUp = () => {
      this.#onDrain = undefined;
      this.#awaitsDrain = false;
      outlet.off('drain', caughtUp).off('close', caughtUp);
      onDrain();
    };
    this.#awaitsDrain = true;
    outlet.on('drain', caughtUp).on('close', caughtUp);
  }
}

/**
 * Nothing has passed over the connection for `--client-stall-timeout-ms`. That is the client's doing if there is something for it to take; else
 * it is the upstream that is silent, which has a limit of its own.
 */
function giveUpStalled(this: ServerResponse): void {
  if (this.req.socket.writableLength > 0) this.destroy();
}

/** One chunk of the chunked transfer coding (RFC 9112 section 7.1). */
function frame(chunk: Buffer): string {
  return `${chunk.length.toString(16)}\r\n${chunk.toString('latin1')}\r\n`;
}

/** Whether an event stream that ended with these bytes has no event open (an empty line, in any of the three line endings). */
function endsEvent(tail: string): boolean {
  return tail === '' || tail.endsWith('\n\n') || tail.endsWith('\r\r') || tail.endsWith('\n\r\n');
}
