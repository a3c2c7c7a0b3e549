import type { HeaderLines } from '@llm-gateway/http1';
import type { FailureCause } from './failure.ts';

/**
 * Looks for the event that ends a stream of an OpenAI or Anthropic API, as its bytes pass. An event
 * stream has no end mark of its own, but these APIs send one: an answer that has it is whole,
 * however its framing ends then.
 *
 * Nearly all pieces are whole events of one JSON object each, of which a few bytes are looked at.
 * Any other piece, such as one with a torn event, is read byte by byte.
 */
export class TerminalEvent {
  /** Whether it has passed. */
  seen = false;
  /** Whether the next byte begins an event. */
  #atStart = true;
  /** Whether events of this stream have names; unknown before the first event. */
  #named: boolean | undefined;
  /** The first bytes of the line that is open. */
  #line = '';
  #lineBytes = 0;
  #afterCr = false;
  /** Whether a line of the open event says that it is the last one. */
  #terminal = false;

  /** Of the answer with these headers; undefined when it is no event stream that can be read. */
  static of(headers: HeaderLines): TerminalEvent | undefined {
    return isEventStream(headers) ? new TerminalEvent() : undefined;
  }

  /** Takes `bytes[from, to)`, which are not kept. */
  take(bytes: Buffer, from: number, to: number): void {
    if (this.seen) return;
    if (this.#atStart && this.#named !== undefined && endsWithObject(bytes, from, to)) {
      if (this.#named) this.seen = isTerminalLine(lastNameLine(bytes, from, to));
      return;
    }
    for (let at = from; at < to; at++) this.#takeByte(bytes[at] as number);
  }

  #takeByte(byte: number): void {
    if (byte === LF && this.#afterCr) {
      this.#afterCr = false;
      return;
    }
    this.#afterCr = byte === CR;
    if (byte === LF || byte === CR) {
      this.#endLine();
      return;
    }
    this.#atStart = false;
    if (this.#lineBytes++ < maxLineBytes) this.#line += String.fromCharCode(byte);
  }

  #endLine(): void {
    if (this.#lineBytes === 0) {
      this.#atStart = true;
      if (this.#terminal) this.seen = true;
      return;
    }
    if (this.#line.startsWith('event:')) this.#named = true;
    else if (this.#line.startsWith('data:')) this.#named ??= false;
    if (this.#lineBytes <= maxLineBytes && isTerminalLine(this.#line)) this.#terminal = true;
    this.#line = '';
    this.#lineBytes = 0;
  }
}

/**
 * Whether an answer with these headers is an event stream that can be read as it is: not an encoded
 * one.
 */
export function isEventStream(headers: HeaderLines): boolean {
  const type = headers.value('content-type');
  if (type === undefined || (type.charCodeAt(0) | 0x20) !== T) return false;
  return /^text\/event-stream/i.test(type) && headers.value('content-encoding') === undefined;
}

/** Whether an answer that has its terminal event may end like this. */
export function isBrokenEnd(cause: FailureCause): boolean {
  return cause === 'truncated' || cause === 'idle_timeout';
}

const T = 0x74;
const LF = 0x0a;
const CR = 0x0d;
const CLOSING_BRACE = 0x7d;
/** A longer line cannot end a stream. */
const maxLineBytes = 40;
const terminalNames: ReadonlySet<string> = new Set([
  'message_stop',
  'response.completed',
  'response.failed',
  'response.incomplete',
]);

function isTerminalLine(line: string): boolean {
  if (line.startsWith('event:')) return terminalNames.has(line.slice('event:'.length).trim());
  return line.startsWith('data:') && line.slice('data:'.length).trim() === '[DONE]';
}

/** Whether the bytes end with an event whose data end with an object: `[DONE]` does not. */
function endsWithObject(bytes: Buffer, from: number, to: number): boolean {
  return to - from > 2 && bytes[to - 1] === LF && bytes[to - 2] === LF && bytes[to - 3] === CLOSING_BRACE;
}

const nameLine = 'event: ';
const laterNameLine = Buffer.from(`\n${nameLine}`);
/** What the names of `terminalNames` begin with. */
const M = 0x6d;
const R = 0x72;

/**
 * The line with the name of the last event in `bytes[from, to)`, as far as it may be one that ends
 * a stream; empty when there is none.
 */
function lastNameLine(bytes: Buffer, from: number, to: number): string {
  const later = to - from < laterNameLine.length ? -1 : bytes.lastIndexOf(laterNameLine, to - laterNameLine.length);
  const start = later >= from ? later + 1 : from;
  const initial = bytes[start + nameLine.length];
  if (initial !== M && initial !== R) return '';
  const text = bytes.toString('latin1', start, Math.min(to, start + maxLineBytes));
  return text.slice(0, Math.max(0, text.indexOf('\n')));
}
