import type { ResponseHead } from '@llm-gateway/upstream';
import type { Holding } from '../body/body-budget.ts';

const LF = 0x0a;
/** The event with the usage is shorter than this. */
const maxEventBytes = 65_536;
const noChoices = /"choices"\s*:\s*\[\s*\]/;
const choicesKey = Buffer.from('"choices"');

/**
 * Removes the event that contains only the usage from a stream. Nearly all chunks are whole events
 * and pass as they are.
 */
export class UsageEventFilter {
  readonly #memory: Holding;
  #on = false;
  /** The beginning of an event that is not whole yet. */
  #held: Buffer | null = null;

  /** @param memory accounts for the held bytes */
  constructor(memory: Holding) {
    this.#memory = memory;
  }

  /** Another answer begins. */
  begin({ status, headers }: ResponseHead): void {
    this.rest();
    const type = headers.value('content-type') ?? '';
    // A length that was promised must stay.
    const isPlain = headers.value('content-encoding') === undefined && headers.value('content-length') === undefined;
    this.#on = status >= 200 && status <= 299 && /^text\/event-stream/i.test(type) && isPlain;
  }

  /** The part to pass on now; null: nothing yet. */
  take(chunk: Buffer): Buffer | null {
    if (!this.#on) return chunk;
    const bytes = this.#held === null ? chunk : Buffer.concat([this.#held, chunk]);
    this.#release();
    const end = bytes.length >= 2 && endsEvent(bytes) ? bytes.length : endOfEvents(bytes);
    const passing = withoutUsage(bytes.subarray(0, end));
    if (end < bytes.length && !this.#hold(bytes.subarray(end))) {
      // It cannot be held: from here on the stream goes on as it is.
      this.#on = false;
      return Buffer.concat([passing, bytes.subarray(end)]);
    }
    return passing.length === 0 ? null : passing;
  }

  /** What was held back when the answer has come to its end, or broken off. */
  rest(): Buffer | null {
    const held = this.#held;
    this.#release();
    return held;
  }

  #hold(bytes: Buffer): boolean {
    if (bytes.length > maxEventBytes || !this.#memory.hold(bytes.length)) return false;
    // The chunk is only lent.
    this.#held = Buffer.from(bytes);
    return true;
  }

  #release(): void {
    if (this.#held === null) return;
    this.#memory.free(this.#held.length);
    this.#held = null;
  }
}

function endsEvent(bytes: Buffer): boolean {
  return bytes[bytes.length - 1] === LF && (bytes[bytes.length - 2] === LF || isCrLfEnd(bytes));
}

function isCrLfEnd(bytes: Buffer): boolean {
  return bytes.length >= 4 && bytes.toString('latin1', bytes.length - 4) === '\r\n\r\n';
}

/** Behind the last whole event. */
function endOfEvents(bytes: Buffer): number {
  const plain = bytes.lastIndexOf('\n\n');
  const crlf = bytes.lastIndexOf('\r\n\r\n');
  return Math.max(plain < 0 ? 0 : plain + 2, crlf < 0 ? 0 : crlf + 4);
}

/** Whole events without those that have no choice in them. */
function withoutUsage(events: Buffer): Buffer {
  // Nearly always: a look by native code is enough.
  if (!mayHaveNone(events)) return events;
  const text = events.toString('latin1');
  const kept = text.split(/(?<=\r?\n\r?\n)/).filter((event) => !(noChoices.test(event) && event.includes('"usage"')));
  return Buffer.from(kept.join(''), 'latin1');
}

function mayHaveNone(events: Buffer): boolean {
  for (let at = events.indexOf(choicesKey); at >= 0; at = events.indexOf(choicesKey, at + choicesKey.length)) {
    if (noChoices.test(events.toString('latin1', at, at + 64))) return true;
  }
  return false;
}
