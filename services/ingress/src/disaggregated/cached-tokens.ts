import type { ResponseHead } from '@llm-gateway/upstream';
import type { Holding } from '../body/body-budget.ts';
import { changeMembers, type JsonObject, lastValue, readObject } from '../body/member-changes.ts';
import type { AnswerChange } from '../calls/attempt.ts';

/** A larger answer goes on as it is. */
const maxWholeBytes = 16 * 1024 * 1024;
/** The event with the usage is shorter than this. */
const maxLineBytes = 65_536;
const LF = 0x0a;
const CR = 0x0d;
const usageKey = '"usage"';
const dataField = Buffer.from('data:');

/**
 * Whether the client is going to see a usage: every answer in one piece has it, a stream when it
 * was asked for.
 */
export function showsUsage(body: JsonObject, isStream: boolean): boolean {
  if (!isStream) return true;
  const options = objectIn(body, 'stream_options');
  return options !== null && lastValue(options, 'include_usage')?.toString() === 'true';
}

/**
 * How much of the prompt an engine had in its prefix cache, by the usage of its answer; null when
 * that does not say.
 */
export function cachedTokensOf(answer: Buffer): string | null {
  const whole = readObject(answer);
  const usage = whole && objectIn(whole, 'usage');
  const details = usage && objectIn(usage, 'prompt_tokens_details');
  const count = details && lastValue(details, 'cached_tokens')?.toString();
  return count && /^\d{1,15}$/.test(count) ? count : null;
}

/**
 * Shows the client the prefill's `cached_tokens` in the decode's answer. To a decode engine the
 * whole prompt is cached, because the prefill computed it; to the client it was only what the
 * prefill engine found in its own cache. No other byte changes.
 */
export class CachedTokens implements AnswerChange {
  readonly #count: string;
  readonly #memory: Holding;
  #kind: 'as it is' | 'whole' | 'events' = 'as it is';
  /**
   * What may become another text: all of an answer in one piece, of a stream the line that is not
   * whole yet.
   */
  #held: Buffer[] = [];
  #heldBytes = 0;

  /**
   * @param count from `cachedTokensOf`
   * @param memory what is held is taken out of it
   */
  constructor(count: string, memory: Holding) {
    this.#count = count;
    this.#memory = memory;
  }

  begin({ status, headers }: ResponseHead): void {
    if (status < 200 || status > 299 || headers.value('content-encoding') !== undefined) return;
    const type = headers.value('content-type')?.toLowerCase() ?? '';
    if (type.startsWith('application/json')) this.#kind = 'whole';
    // A length that was promised must stay.
    else if (type.startsWith('text/event-stream') && headers.value('content-length') === undefined)
      this.#kind = 'events';
  }

  take(chunk: Buffer): Buffer | null {
    switch (this.#kind) {
      case 'as it is':
        return chunk;
      case 'whole':
        return this.#hold(chunk, maxWholeBytes);
      case 'events':
        return this.#takeLines(chunk);
    }
  }

  rest(): Buffer | null {
    const held = this.#release();
    if (held === null || this.#kind !== 'whole') return held;
    const object = readObject(held);
    return (object && this.#changed(object)) ?? held;
  }

  /** Null while it is held; everything when it cannot be: then the rest goes on as it is. */
  #hold(bytes: Buffer, maxBytes: number): Buffer | null {
    if (this.#heldBytes + bytes.length > maxBytes || !this.#memory.hold(bytes.length)) {
      this.#kind = 'as it is';
      const held = this.#release();
      return held === null ? bytes : Buffer.concat([held, bytes]);
    }
    // The chunk is only lent.
    this.#held.push(Buffer.from(bytes));
    this.#heldBytes += bytes.length;
    return null;
  }

  #release(): Buffer | null {
    if (this.#heldBytes === 0) return null;
    this.#memory.free(this.#heldBytes);
    const held = Buffer.concat(this.#held);
    this.#held = [];
    this.#heldBytes = 0;
    return held;
  }

  /** Whole lines go on at once. */
  #takeLines(chunk: Buffer): Buffer | null {
    const end = Math.max(chunk.lastIndexOf(LF), chunk.lastIndexOf(CR)) + 1;
    if (end === 0) return this.#hold(chunk, maxLineBytes);
    const held = this.#release();
    const lines = held === null ? chunk.subarray(0, end) : Buffer.concat([held, chunk.subarray(0, end)]);
    const changed = this.#changedLines(lines);
    if (end === chunk.length) return changed;
    const beyond = this.#hold(chunk.subarray(end), maxLineBytes);
    return beyond === null ? changed : Buffer.concat([changed, beyond]);
  }

  #changedLines(lines: Buffer): Buffer {
    const pieces: Buffer[] = [];
    let copied = 0;
    for (let at = lines.indexOf(usageKey); at >= 0; ) {
      const start = startOfLine(lines, at);
      const end = endOfLine(lines, at);
      const changed = this.#changedEvent(lines.subarray(start, end));
      if (changed !== null) {
        pieces.push(lines.subarray(copied, start), changed);
        copied = end;
      }
      at = lines.indexOf(usageKey, end);
    }
    return copied === 0 ? lines : Buffer.concat([...pieces, lines.subarray(copied)]);
  }

  /** Null when it is not the event with the usage, which has no choice in it. */
  #changedEvent(line: Buffer): Buffer | null {
    if (!line.subarray(0, dataField.length).equals(dataField)) return null;
    const object = readObject(line.subarray(dataField.length));
    const choices = object && lastValue(object, 'choices')?.toString();
    if (!object || !choices || !/^\[\s*\]$/.test(choices)) return null;
    const changed = this.#changed(object);
    return changed && Buffer.concat([dataField, changed]);
  }

  /** Null when there is no usage. */
  #changed(object: JsonObject): Buffer | null {
    const usage = objectIn(object, 'usage');
    if (usage === null) return null;
    const details = objectIn(usage, 'prompt_tokens_details');
    const fresh = details ? changeMembers(details, { cached_tokens: this.#count }) : `{"cached_tokens":${this.#count}}`;
    return changeMembers(object, { usage: changeMembers(usage, { prompt_tokens_details: fresh }) });
  }
}

function objectIn(object: JsonObject, key: string): JsonObject | null {
  const value = lastValue(object, key);
  return value === undefined ? null : readObject(value);
}

function isLineEnd(byte: number | undefined): boolean {
  return byte === LF || byte === CR || byte === undefined;
}

function startOfLine(lines: Buffer, from: number): number {
  let at = from;
  while (!isLineEnd(lines[at - 1])) at--;
  return at;
}

function endOfLine(lines: Buffer, from: number): number {
  let at = from;
  while (!isLineEnd(lines[at])) at++;
  return at;
}
