/** Tokens of one request, as its engine counted them. */
export interface TokenCounts {
  /** Of the prompt, cached ones included. */
  readonly prompt: number;
  /** Of those, found in a cache. */
  readonly cached: number;
  /** Of the answer, reasoning included. */
  readonly completion: number;
  readonly reasoning: number;
}

const key = Buffer.from('"usage"');
/** A longer object is no usage. */
const maxObjectBytes = 4096;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
/** What stands between two chunks of an answer that passes in its framing. */
const framing = /\r\n[0-9a-f]+\r\n/gi;

/**
 * Finds the token counts of an answer while its bytes pass, whole or streamed, of any of the APIs:
 * holds the counts of two objects, each parsed once. A text that quotes the key has escaped quotes
 * around it, and does not match.
 */
export class UsageReader {
  /**
   * The first and the last object: Messages streams tell the prompt in the first, the answer in the
   * last.
   */
  #first: TokenCounts | null = null;
  #last: TokenCounts | null = null;
  /** How much of the key stood at the end of the bytes before. */
  #matched = 0;
  /** The text behind a key that is not whole yet; null between objects. */
  #open: string | null = null;

  /** Takes the next bytes, which are not kept. */
  take(bytes: Buffer): void {
    if (bytes.length === 0) return;
    let from = 0;
    if (this.#open !== null) from = this.#read(bytes, 0);
    else if (this.#matched > 0) from = this.#continueKey(bytes);
    while (from >= 0 && from < bytes.length) {
      const at = bytes.indexOf(key, from);
      if (at < 0) break;
      this.#open = '';
      from = this.#read(bytes, at + key.length);
    }
    if (from !== stillKey) this.#matched = this.#open === null ? keyAtEnd(bytes) : 0;
  }

  /** Null when there were none. */
  get counts(): TokenCounts | null {
    const first = this.#first;
    const last = this.#last;
    if (first === null || last === null) return first;
    // What a stream says later is no less. Of what a client made an engine repeat the largest numbers count.
    return {
      prompt: Math.max(first.prompt, last.prompt),
      cached: Math.max(first.cached, last.cached),
      completion: Math.max(first.completion, last.completion),
      reasoning: Math.max(first.reasoning, last.reasoning),
    };
  }

  #continueKey(bytes: Buffer): number {
    const left = key.subarray(this.#matched);
    const length = Math.min(left.length, bytes.length);
    if (bytes.compare(left, 0, length, 0, length) !== 0) return 0;
    if (length < left.length) {
      this.#matched += length;
      return stillKey;
    }
    this.#open = '';
    return this.#read(bytes, left.length);
  }

  /** Reads the value behind a key. Returns where to look on; -1 when it is not whole yet. */
  #read(bytes: Buffer, from: number): number {
    const before = this.#open ?? '';
    const end = Math.min(bytes.length, from + maxObjectBytes - before.length);
    const text = before + bytes.toString('latin1', from, end);
    const length = objectLength(text);
    if (length === 'open' && text.length < maxObjectBytes) {
      this.#open = text;
      return -1;
    }
    this.#open = null;
    if (typeof length !== 'number') return from;
    const counts = countsIn(text.slice(0, length));
    if (this.#first === null) this.#first = counts;
    else this.#last = counts ?? this.#last;
    // An answer holds no other value of that name within this one.
    return from + length - before.length;
  }
}

/** All of the bytes were a part of the key. */
const stillKey = -2;

/** How many bytes of the key stand at the end. */
function keyAtEnd(bytes: Buffer): number {
  for (let count = Math.min(key.length - 1, bytes.length); count > 0; count--) {
    if (bytes[bytes.length - count] !== QUOTE) continue;
    if (key.compare(bytes, bytes.length - count, bytes.length, 0, count) === 0) return count;
  }
  return 0;
}

/**
 * How long `: {…}` is at the beginning of a text; `open` when it does not end there, `none` for any
 * other value.
 */
function objectLength(text: string): number | 'open' | 'none' {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (inString) {
      if (code === BACKSLASH) at++;
      else if (code === QUOTE) inString = false;
    } else if (code === QUOTE) {
      if (depth === 0) return 'none';
      inString = true;
    } else if (code === OPEN) depth++;
    else if (code === CLOSE) {
      depth--;
      if (depth === 0) return at + 1;
      if (depth < 0) return 'none';
    } else if (depth === 0 && !/[\s:0-9a-f]/i.test(text[at] as string)) return 'none';
  }
  return 'open';
}

function countsIn(text: string): TokenCounts | null {
  let value: unknown;
  try {
    const whole = text.includes('\r') ? text.replace(framing, '') : text;
    value = JSON.parse(whole.replace(/^\s*:/, ''));
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null) return null;
  const usage = value as Readonly<Record<string, unknown>>;
  const prompt = countOf(usage.prompt_tokens) ?? countOf(usage.input_tokens);
  const completion = countOf(usage.completion_tokens) ?? countOf(usage.output_tokens);
  const total = countOf(usage.total_tokens);
  if (prompt === null && completion === null && total === null) return null;
  // The Messages API leaves what is read from and written to a cache out of `input_tokens`.
  const read = countOf(usage.cache_read_input_tokens) ?? 0;
  const written = countOf(usage.cache_creation_input_tokens) ?? 0;
  const promptDetails = detailsOf(usage.prompt_tokens_details ?? usage.input_tokens_details);
  const answerDetails = detailsOf(usage.completion_tokens_details ?? usage.output_tokens_details);
  return {
    prompt: (prompt ?? Math.max(0, (total ?? 0) - (completion ?? 0))) + read + written,
    cached: countOf(promptDetails.cached_tokens) ?? read,
    completion: completion ?? 0,
    reasoning: countOf(answerDetails.reasoning_tokens) ?? 0,
  };
}

function detailsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}

function countOf(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null;
}
