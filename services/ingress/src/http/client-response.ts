import { chunkOf, HeaderLines, lastChunk } from '@llm-gateway/http1';
import type { ErrorCode, FinishReason } from '@llm-gateway/protocol';
import { isEventStream } from '@llm-gateway/upstream';
import {
  chunkedLine,
  dateLine,
  isEncoded,
  keepAliveLines,
  statusLine,
  streamLines,
  withLengthZero,
  withoutLength,
} from './answer-head.ts';
import type { ClientConnection, ConnectionUser } from './connection.ts';
import { errorBodyFor, errorStatus } from './error-answer.ts';
import { eventOfError } from './stream-error.ts';
import { endsEvent, endsWithinLine, tailAfter, tailOfChunks } from './stream-tail.ts';
import type { ErrorShape } from './surface.ts';
import { ToldAnswer } from './told-answer.ts';
import { type Flushable, flushAtEndOfTurn } from './turn.ts';

/**
 * A reset discards data in transit, so the error event of a broken stream has this long to arrive.
 */
const resetDelayMs = 2000;
/** Larger chunks are written alone: copying them into the turn's write costs more than it saves. */
const joinedBytes = 16_384;
/** Bytes of one answer that may wait for the end of a turn. */
const maxWaitingBytes = 262_144;

/** What an answer needs to know of its request. */
export interface AnsweredRequest {
  readonly method: string;
  /** The minor version of the client's HTTP/1. */
  readonly minor: number;
  readonly errorShape: ErrorShape;
  readonly id: string;
}

/** Each is called at most once. */
export interface AnswerWatcher {
  /** The first byte goes out. */
  onCommit(): void;
  /** The client left before it had its whole answer. */
  onLeft(): void;
}

/**
 * The client's side of one request: the only writer of answers, and the one place that commits.
 * From the first byte written here nothing is tried again.
 *
 * The head is held until the first body byte (or the end) is there, so that an upstream that dies
 * between the two can still be replaced. What is to be sent waits for the end of the turn as
 * Latin-1 text, which stands for the same octets, because joining text costs less than joining
 * buffers, and several chunks leave in one write.
 */
export class ClientResponse implements Flushable, ConnectionUser {
  readonly #connection: ClientConnection;
  readonly #request: AnsweredRequest;
  readonly #watcher: AnswerWatcher;
  #head: { status: number; own: string; headers: HeaderLines } | undefined;
  #chunked = false;
  /**
   * Neither chunked nor with a length, as for an HTTP/1.0 client: only the connection's end says
   * where the body ends.
   */
  #endUnmarked = false;
  #eventStream = false;
  #noBody = false;
  #close = false;
  #waiting = '';
  #ended = false;
  /** The last chunk has passed with the others. */
  #endFramed = false;
  #flushDue = false;
  #over = false;
  /** The last bytes of an event stream, to know whether an event was left open. */
  #tail = '';
  #onDrain: (() => void) | undefined;
  /** Set while a silent stream sends heartbeats. */
  #heartbeat: NodeJS.Timeout | undefined;
  /** A heartbeat has sent the head of a stream: any answer must now be sent inside it. */
  #opened = false;
  /** After that, an answer that is no stream. */
  #told: ToldAnswer | undefined;
  readonly #onOver: (() => void)[] = [];
  committed = false;
  /** CORS header lines; see `Cors.linesFor`. */
  corsLines = '';
  status = 0;
  bodyBytes = 0;
  committedAtMs = 0;
  /** Set if the finish reason is needed: sees the bytes of the answer as they pass. */
  finishReason: FinishReason | undefined;

  constructor(connection: ClientConnection, request: AnsweredRequest, watcher: AnswerWatcher) {
    this.#connection = connection;
    this.#request = request;
    this.#watcher = watcher;
    connection.use(this);
  }

  /**
   * Calls back once when the answer is over: the last byte is with the kernel, or the client is
   * gone.
   */
  whenOver(callback: () => void): void {
    if (this.#over) callback();
    else this.#onOver.push(callback);
  }

  /**
   * Takes the head of the answer that is about to be relayed; replaces one that was never
   * committed.
   */
  prepare(status: number, own: HeaderLines, headers: HeaderLines): void {
    if (this.#opened) {
      const isStream = status < 300 && isEventStream(headers);
      this.#told = isStream ? undefined : new ToldAnswer(status, { isEncoded: isEncoded(headers) });
      return;
    }
    this.#head = { status, own: own.lines, headers };
    const isHttp11 = this.#request.minor === 1;
    const lengthTold = status === 205 || headers.value('content-length') !== undefined;
    // An answer without content has no length either (RFC 9110 section 8.6).
    if (status === 204 && lengthTold) this.#head = { status, own: own.lines, headers: withoutLength(headers) };
    // Of one that resets a form it is 0 (RFC 9110 section 15.3.6).
    if (status === 205) this.#head = { status, own: own.lines, headers: withLengthZero(headers) };
    this.#noBody = status === 204 || status === 205 || status === 304 || this.#request.method === 'HEAD';
    this.#chunked = !this.#noBody && isHttp11 && !lengthTold;
    this.#endUnmarked = !this.#noBody && !isHttp11 && !lengthTold;
    this.#eventStream = isEventStream(headers);
  }

  /**
   * Sends a comment each time this event stream has been silent for `intervalMs`, until it is over.
   * The first one sends a head as well, with status 200, when there is none yet. It commits
   * nothing: another upstream may still be tried, and what becomes of the request is told in the
   * stream.
   * @param own header lines in addition to those of every stream
   */
  beatEvery(intervalMs: number, own: HeaderLines): void {
    this.#heartbeat = setTimeout(() => this.#beat(own), intervalMs);
  }

  #beat(own: HeaderLines): void {
    if (this.#over || this.#ended) return;
    this.#heartbeat?.refresh();
    if (this.#connection.output.needsDrain || this.#waiting !== '') return;
    if (!this.committed) {
      if (!this.#opened) this.#open(own);
    } else if (!this.#tellsInStream || !endsEvent(this.#tail)) return;
    this.#add(this.#chunked ? chunkOf(heartbeat) : heartbeat);
  }

  #open(own: HeaderLines): void {
    this.#opened = true;
    this.#eventStream = true;
    this.#chunked = this.#request.minor === 1;
    this.#endUnmarked = !this.#chunked;
    this.#close = this.#endUnmarked || this.#connection.willClose;
    this.#connection.committed();
    this.#waiting = `${statusLine(200)}${this.corsLines}${own.lines}content-type: text/event-stream; charset=utf-8\r\n${streamLines(own)}${dateLine()}${this.#chunked ? chunkedLine : ''}${this.#persistence()}\r\n`;
  }

  /** Whether what is not the upstream's can be told from its answer. */
  get #tellsInStream(): boolean {
    return this.#eventStream && (this.#chunked || this.#endUnmarked);
  }

  /**
   * Sends one chunk as it is, when this turn ends. False when the client takes it slower than it
   * comes: `onDrain` is called once when it has caught up.
   */
  write(chunk: Buffer, onDrain: () => void): boolean {
    if (chunk.length === 0 || this.#over) return true;
    if (this.#told !== undefined) {
      this.#told.take(chunk);
      return true;
    }
    if (!this.committed) this.#commit();
    if (this.#noBody) return true;
    this.bodyBytes += chunk.length;
    this.finishReason?.take(chunk);
    if (chunk.length <= joinedBytes) {
      const text = chunk.toString('latin1');
      this.#add(this.#chunked ? chunkOf(text) : text);
    } else this.#sendLarge(chunk);
    if (this.#eventStream) this.#tail = tailAfter(this.#tail, chunk);
    return this.#goesOn(onDrain);
  }

  /**
   * Whether chunks may come in their framing: those of this answer are framed alike, and nobody
   * looks into them.
   */
  get takesFramed(): boolean {
    return this.#chunked && this.finishReason === undefined && this.#told === undefined;
  }

  /**
   * As `write`, for whole chunks in the framing that they came in. `last`: the last chunk is among
   * them.
   */
  writeFramed(
    bytes: Buffer,
    { payloadBytes, last }: { payloadBytes: number; last: boolean },
    onDrain: () => void,
  ): boolean {
    if (this.#over) return true;
    if (!this.committed) this.#commit();
    this.bodyBytes += payloadBytes;
    this.#endFramed = last;
    if (bytes.length <= joinedBytes) this.#add(bytes.toString('latin1'));
    else {
      this.#flushText();
      // The bytes are only lent.
      this.#connection.output.writeOctets(Buffer.from(bytes));
    }
    if (this.#eventStream) this.#tail = tailOfChunks(bytes);
    return this.#goesOn(onDrain);
  }

  #goesOn(onDrain: () => void): boolean {
    if (this.#waiting.length <= maxWaitingBytes && !this.#connection.output.needsDrain) return true;
    this.#onDrain ??= onDrain;
    if (!this.#flushDue) this.#waitForDrain();
    return false;
  }

  /** The answer is whole. */
  end(): void {
    if (this.#over) return;
    if (this.#told !== undefined) {
      this.#tell(this.#told);
      return;
    }
    if (!this.committed) this.#commit();
    this.#ended = true;
    this.#add(this.#chunked && !this.#endFramed ? lastChunk : '');
  }

  /** A whole answer at once; its length is that of `body`, whatever `headers` say. */
  answer(status: number, headers: HeaderLines, body: Buffer): void {
    if (this.#over) return;
    if (this.#opened) {
      const told = new ToldAnswer(status, { isEncoded: isEncoded(headers) });
      told.take(body);
      this.#tell(told);
      return;
    }
    this.#start(status);
    this.#noBody = this.#request.method === 'HEAD' || status === 204 || status === 304;
    this.#close = this.#connection.willClose;
    const length = status === 204 || status === 304 ? '' : `content-length: ${body.length}\r\n`;
    const lines = headers.value('content-length') === undefined ? headers.lines : withoutLength(headers).lines;
    this.#waiting = `${statusLine(status)}${this.corsLines}${lines}${headers.value('date') === undefined ? dateLine() : ''}${length}${this.#persistence()}\r\n`;
    if (!this.#noBody) {
      this.bodyBytes = body.length;
      this.finishReason?.take(body);
      if (body.length <= joinedBytes) this.#waiting += body.toString('latin1');
      else {
        this.#flushText();
        this.#connection.output.writeOctets(body);
      }
    }
    this.#ended = true;
    this.#add('');
  }

  /** A truthful error in the shape of the path's API, before anything was committed. */
  refuse(code: ErrorCode, message: string, options: { param?: string | null; headers?: readonly string[] } = {}): void {
    const error = errorBodyFor(this.#request, { code, message, ...options });
    const status = errorStatus(code, this.#request);
    if (this.#opened) {
      this.#start(status);
      this.#breakWith(eventOfError(error, this.#request.errorShape));
      return;
    }
    const headers = ['content-type', 'application/json', ...(options.headers ?? [])];
    // Where Anthropic's clients look for it.
    if (this.#request.errorShape === 'anthropic') headers.push('request-id', this.#request.id);
    this.answer(status, HeaderLines.of(headers), Buffer.from(JSON.stringify(error)));
  }

  /**
   * The answer broke after it was committed. An event stream says so in one last event, unless a
   * length was promised that the event would break, or the answer broke within a line: ending the
   * line would make clients parse half of it. In any case the connection closes without the mark of
   * a proper end, so that a cut answer never looks complete.
   */
  breakOff(code: ErrorCode, message: string): void {
    if (this.#over || this.#ended) return;
    this.#breakWith(eventOfError(errorBodyFor(this.#request, { code, message }), this.#request.errorShape));
  }

  #breakWith(event: string): void {
    const tellsEnd = this.#tellsInStream && !endsWithinLine(this.#tail);
    if (tellsEnd) {
      const text = Buffer.from(`${endsEvent(this.#tail) ? '' : '\n\n'}${event}`).toString('latin1');
      this.#waiting += this.#chunked ? chunkOf(text) : text;
    }
    this.#flushText();
    if (this.#endUnmarked) this.#connection.reset(tellsEnd ? resetDelayMs : 0);
    else this.#connection.cut();
    this.#finish();
  }

  #tell(told: ToldAnswer): void {
    this.#start(told.status);
    this.#breakWith(told.event(this.#request.errorShape));
  }

  /** Something is wrong that nobody expected: nothing more is written. */
  destroy(): void {
    this.#connection.destroy();
  }

  /** Sends what waits. The end of the turn calls it; see `flushAtEndOfTurn`. */
  flush(): void {
    this.#flushDue = false;
    if (this.#over) return;
    this.#flushText();
    if (this.#ended) {
      // Not before it is with the kernel: until then the client may stop taking it.
      this.#connection.output.onFlushed(() => {
        if (this.#over) return;
        this.#finish();
        this.#connection.finished({ close: this.#close });
      });
    } else if (this.#onDrain !== undefined) this.#waitForDrain();
  }

  /** The connection is gone before the answer was over. */
  onLost(): void {
    if (this.#over) return;
    this.#waiting = '';
    const onDrain = this.#onDrain;
    this.#onDrain = undefined;
    this.#watcher.onLeft();
    this.#finish();
    onDrain?.();
  }

  #finish(): void {
    this.#over = true;
    clearTimeout(this.#heartbeat);
    for (const callback of this.#onOver.splice(0)) callback();
  }

  #commit(): void {
    if (this.#opened) {
      this.#start(200);
      return;
    }
    if (this.#head === undefined) throw new Error('an answer has no head');
    const { status, own, headers } = this.#head;
    // A stream may last long, and its head is no longer needed.
    this.#head = undefined;
    this.#start(status);
    this.#close = this.#endUnmarked || this.#connection.willClose;
    const framing = this.#chunked ? chunkedLine : '';
    const ofStream = this.#eventStream ? streamLines(headers) : '';
    this.#waiting = `${statusLine(status)}${this.corsLines}${own}${headers.lines}${ofStream}${framing}${this.#persistence()}\r\n`;
  }

  #start(status: number): void {
    this.committed = true;
    this.status = status;
    this.committedAtMs = performance.now();
    this.#connection.committed();
    this.#watcher.onCommit();
  }

  /**
   * Whether the connection stays, and for how long: a client that knows does not write to one that
   * is being closed.
   */
  #persistence(): string {
    if (this.#close) return 'connection: close\r\n';
    return keepAliveLines(this.#connection.keepAliveMs);
  }

  #add(text: string): void {
    this.#waiting += text;
    if (this.#flushDue) return;
    this.#flushDue = true;
    flushAtEndOfTurn(this);
  }

  #sendLarge(chunk: Buffer): void {
    if (this.#chunked) this.#waiting += `${chunk.length.toString(16)}\r\n`;
    this.#flushText();
    // The chunk is only lent.
    this.#connection.output.writeOctets(Buffer.from(chunk));
    if (this.#chunked) this.#add('\r\n');
  }

  #flushText(): void {
    if (this.#waiting === '') return;
    const text = this.#waiting;
    this.#waiting = '';
    this.#heartbeat?.refresh();
    this.#connection.output.write(text);
  }

  #waitForDrain(): void {
    this.#connection.output.onDrain(() => {
      const onDrain = this.#onDrain;
      this.#onDrain = undefined;
      onDrain?.();
    });
  }
}

const heartbeat = ': heartbeat\n\n';
