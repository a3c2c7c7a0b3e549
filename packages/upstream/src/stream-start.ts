import { type EventMeaning, meaningOf, type StreamApi, type StreamError } from './stream-event.ts';

/** Held at most of one stream; with more than that it has begun, whatever it is. */
const maxHeldBytes = 65_536;
/** A blank line: the end of an event, in any of the three line endings. */
const eventEnd = /(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))/g;
const maxEndLength = 4;
const byteOrderMark = '\u00ef\u00bb\u00bf';
const QUOTE = 0x22;

/** What only an event with content has in it; inside a JSON string its quotes would be escaped. */
const contentMarks: Readonly<Record<StreamApi, Buffer>> = {
  chat: Buffer.from('"content":"'),
  completions: Buffer.from('"text":"'),
  messages: Buffer.from('"content_block_delta"'),
  responses: Buffer.from('.delta"'),
};

/**
 * Whether there is content in a piece of a stream, by a look that nearly every first piece with
 * content passes.
 */
export function showsContent(chunk: Buffer, api: StreamApi): boolean {
  const mark = contentMarks[api];
  const isText = api === 'chat' || api === 'completions';
  for (let at = chunk.indexOf(mark); at >= 0; at = chunk.indexOf(mark, at + 1)) {
    if (!isText) return true;
    const next = at + mark.length;
    // A role comes with an empty text.
    if (next < chunk.length && chunk[next] !== QUOTE) return true;
  }
  return false;
}

/** The chunks of an event stream up to its first content, not yet passed on. */
export class StreamStart {
  readonly #api: StreamApi;
  #held: Buffer[] = [];
  /** The event that is not whole yet, a character for each octet. */
  #open = '';
  #first = true;
  heldBytes = 0;
  /** Whether the received part begins an answer; comments and pings do not. */
  begun = false;

  constructor(api: StreamApi) {
    this.#api = api;
  }

  /**
   * Takes the next piece, which is only lent.
   * @returns `hold`: it is kept here. `content`: it is not, and belongs after what `release` gives.
   * Otherwise the error that it reports.
   */
  take(chunk: Buffer): 'hold' | 'content' | StreamError {
    if (showsContent(chunk, this.#api)) return 'content';
    const meaning = this.#read(chunk);
    if (meaning === 'content' || typeof meaning === 'object') return meaning;
    if (meaning === 'preamble' || (this.#open !== '' && !this.#open.startsWith(':'))) this.begun = true;
    if (this.heldBytes + chunk.length > maxHeldBytes) {
      if (this.begun || this.#open.length > maxHeldBytes) return 'content';
      // Only comments, which can be dropped.
      this.#held = [Buffer.from(this.#open, 'latin1')];
      this.heldBytes = this.#open.length;
      return 'hold';
    }
    this.#held.push(Buffer.from(chunk));
    this.heldBytes += chunk.length;
    return 'hold';
  }

  /**
   * The body came to its end. The error that its last event reports, should only the blank line
   * behind it be missing.
   */
  end(): StreamError | null {
    if (this.#open === '') return null;
    const meaning = meaningOf(this.#open, this.#api);
    return typeof meaning === 'object' ? meaning : null;
  }

  /** All that is held, which is held no more; null when that is nothing. */
  release(): Buffer | null {
    if (this.heldBytes === 0) return null;
    const all = Buffer.concat(this.#held);
    this.#held = [];
    this.heldBytes = 0;
    return all;
  }

  #read(chunk: Buffer): EventMeaning {
    let text = this.#open + chunk.toString('latin1');
    if (this.#first && text.length >= byteOrderMark.length) {
      this.#first = false;
      if (text.startsWith(byteOrderMark)) text = text.slice(byteOrderMark.length);
    }
    let from = 0;
    let meaning: EventMeaning = 'nothing';
    // Before that, there was no end.
    eventEnd.lastIndex = Math.max(0, this.#open.length - maxEndLength);
    while (eventEnd.exec(text) !== null) {
      const found = meaningOf(text.slice(from, eventEnd.lastIndex), this.#api);
      if (found === 'content' || typeof found === 'object') return found;
      if (found === 'preamble') meaning = found;
      from = eventEnd.lastIndex;
    }
    this.#open = text.slice(from);
    return meaning;
  }
}
