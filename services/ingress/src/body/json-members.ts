/**
 * Where the members of a JSON object lie in its bytes, without building the object. Only the
 * outline is checked (strings, brackets, commas at the top level): what lies inside the values is
 * the engine's to judge.
 */
export interface Member {
  readonly key: string;
  /** The opening quote of the key. */
  readonly keyStart: number;
  readonly valueStart: number;
  /** Behind the last byte of the value. */
  readonly valueEnd: number;
  /**
   * Behind the objects and arrays in the value, ascending, when it is an array that `ElementMarks`
   * name: the first and the last of them. Empty otherwise.
   */
  readonly elementEnds: readonly number[];
}

/**
 * Of which members the ends of elements are noted, and how many: the first ones and the last ones.
 */
export interface ElementMarks {
  /** They are wanted of bodies that have so many bytes. */
  readonly fromBytes: number;
  readonly members: ReadonlySet<string>;
  readonly first: number;
  readonly last: number;
}

/**
 * An object of more members is none for us: each is an object of ours while the request lives, and
 * no request has so many.
 */
export const maxMembers = 4096;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Deeper nesting is valid for no engine, and costs a parser more than its length. */
const maxNesting = 1024;

/** Strings longer than this are searched by native code, shorter ones are not worth the call. */
const shortString = 24;
/** Maximum bytes held as text at once. */
const stretchBytes = 65_536;
/**
 * A string in which so many searches found an escaped quote every few bytes (code, JSON in JSON) is
 * read byte by byte to its end.
 */
const denseSearches = 64;
const denseBytes = 16;

/** Marks the bytes that matter between the values of an array or object. */
const structural = new Uint8Array(256);
for (const byte of [QUOTE, OPEN_BRACE, OPEN_BRACKET, CLOSE_BRACE, CLOSE_BRACKET]) structural[byte] = 1;

/**
 * Finds quotes by native code. It searches text, made of one stretch of the bytes after the other,
 * because a search in a Buffer costs several times one in a string, and a prompt of natural
 * language has a quote every few words. Positions that are asked for never go back.
 */
class Quotes {
  readonly bytes: Buffer;
  #text = '';
  #start = 0;
  #end = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** The first quote at `from` or behind it; -1 when there is none. */
  next(from: number): number {
    for (let at = from; at < this.bytes.length; at = this.#end) {
      if (at >= this.#end) this.#load(at);
      const found = this.#text.indexOf('"', at - this.#start);
      if (found >= 0) return this.#start + found;
    }
    return -1;
  }

  #load(start: number): void {
    // In Latin-1 each byte is one character, whatever it is a part of in UTF-8.
    this.#text = this.bytes.toString('latin1', start, start + stretchBytes);
    this.#start = start;
    this.#end = start + this.#text.length;
  }
}

/**
 * The members of the object that `bytes` hold, in their order, repeated keys included; null when it
 * is no object, or one of too many or too deeply nested. With `marks`, ends of elements are noted
 * on the way.
 */
export function scanMembers(bytes: Buffer, marks: ElementMarks | null = null): Member[] | null {
  const quotes = new Quotes(bytes);
  let at = skipSpace(bytes, 0);
  if (bytes[at] !== OPEN_BRACE) return null;
  const members: Member[] = [];
  at = skipSpace(bytes, at + 1);
  if (bytes[at] === CLOSE_BRACE) return skipSpace(bytes, at + 1) === bytes.length ? members : null;
  for (;;) {
    if (bytes[at] !== QUOTE) return null;
    const keyStart = at;
    const keyEnd = skipString(quotes, at);
    at = skipSpace(bytes, keyEnd);
    if (keyEnd < 0 || bytes[at] !== COLON) return null;
    if (members.length === maxMembers) return null;
    const key = readKey(bytes, keyStart, keyEnd);
    const valueStart = skipSpace(bytes, at + 1);
    const isMarked = marks !== null && bytes[valueStart] === OPEN_BRACKET && marks.members.has(key);
    const ends = isMarked ? new ElementEnds(marks) : null;
    const valueEnd = skipValue(quotes, valueStart, ends);
    if (valueEnd < 0) return null;
    members.push({ key, keyStart, valueStart, valueEnd, elementEnds: ends === null ? noEnds : ends.list() });
    at = skipSpace(bytes, valueEnd);
    if (bytes[at] === CLOSE_BRACE) return skipSpace(bytes, at + 1) === bytes.length ? members : null;
    if (bytes[at] !== COMMA) return null;
    at = skipSpace(bytes, at + 1);
  }
}

const noEnds: readonly number[] = [];

/** Keeps the first and the last of the positions that it is given. */
class ElementEnds {
  readonly #first: number;
  readonly #last: number;
  /** The first ones, and behind them a ring of the last. */
  readonly #ends: number[] = [];
  #count = 0;

  constructor({ first, last }: ElementMarks) {
    this.#first = first;
    this.#last = last;
  }

  note(end: number): void {
    const behind = this.#count - this.#first;
    this.#ends[behind < this.#last ? this.#count : this.#first + (behind % this.#last)] = end;
    this.#count++;
  }

  /** Ascending. */
  list(): readonly number[] {
    const behind = this.#count - this.#first;
    if (behind <= this.#last) return this.#ends;
    const oldest = this.#first + (behind % this.#last);
    const ends = this.#ends;
    return [...ends.slice(0, this.#first), ...ends.slice(oldest), ...ends.slice(this.#first, oldest)];
  }
}

/**
 * The value of JSON text that is nowhere nested deeper than `maxDepth`; undefined for any other
 * text. The depth is looked at before anything is parsed: text from elsewhere must not cost more
 * than its length. The caller bounds that.
 */
export function parseShallow(bytes: Buffer, maxDepth: number): unknown {
  if (!isShallow(bytes, maxDepth)) return undefined;
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
}

function isShallow(bytes: Buffer, maxDepth: number): boolean {
  const quotes = new Quotes(bytes);
  let depth = 0;
  let at = 0;
  while (at < bytes.length) {
    const byte = bytes[at] as number;
    if (byte === QUOTE) {
      at = skipString(quotes, at);
      if (at < 0) return false;
      continue;
    }
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      if (++depth > maxDepth) return false;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth--;
    at++;
  }
  return true;
}

/** A key is compared by meaning, so that `"mod\u0065l"` is `model`. */
function readKey(bytes: Buffer, start: number, end: number): string {
  const text = bytes.toString('utf8', start + 1, end - 1);
  if (!text.includes('\\')) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    return text;
  }
}

function skipSpace(bytes: Buffer, from: number): number {
  let at = from;
  for (;;) {
    const byte = bytes[at];
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return at;
    at++;
  }
}

/** Behind the closing quote of the string that begins at `from`; -1 when it never closes. */
function skipString(quotes: Quotes, from: number): number {
  const { bytes } = quotes;
  const near = Math.min(bytes.length, from + 1 + shortString);
  let at = from + 1;
  while (at < near) {
    const byte = bytes[at];
    if (byte === QUOTE) return at + 1;
    at += byte === BACKSLASH ? 2 : 1;
  }
  return skipLongString(quotes, from, at);
}

/**
 * The same from `at` on, which is behind an escape or none, for the string that begins at `from`.
 */
function skipLongString(quotes: Quotes, from: number, start: number): number {
  const { bytes } = quotes;
  let at = start;
  for (let searches = 1; searches < denseSearches || at - from > searches * denseBytes; searches++) {
    const quote = quotes.next(at);
    if (quote < 0) return -1;
    let escapes = quote;
    while (escapes > at && bytes[escapes - 1] === BACKSLASH) escapes--;
    if ((quote - escapes) % 2 === 0) return quote + 1;
    at = quote + 1;
  }
  while (at < bytes.length) {
    const byte = bytes[at];
    if (byte === QUOTE) return at + 1;
    at += byte === BACKSLASH ? 2 : 1;
  }
  return -1;
}

/** Behind the value that begins at `from`; -1 when there is none or it never ends. */
function skipValue(quotes: Quotes, from: number, ends: ElementEnds | null): number {
  const { bytes } = quotes;
  const first = bytes[from];
  if (first === QUOTE) return skipString(quotes, from);
  if (first === OPEN_BRACE || first === OPEN_BRACKET) return skipNested(quotes, from, ends);
  let at = from;
  while (at < bytes.length && isScalarByte(bytes[at] as number)) at++;
  return at > from ? at : -1;
}

/** @param ends takes where the outermost objects and arrays in it end */
function skipNested(quotes: Quotes, from: number, ends: ElementEnds | null): number {
  const { bytes } = quotes;
  let depth = 0;
  let at = from;
  while (at < bytes.length) {
    while (structural[bytes[at] as number] === 0) at++;
    switch (bytes[at]) {
      case QUOTE:
        at = skipString(quotes, at);
        if (at < 0) return -1;
        continue;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        if (++depth > maxNesting) return -1;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth--;
        if (depth === 0) return at + 1;
        if (ends !== null && depth === 1) ends.note(at + 1);
        break;
    }
    at++;
  }
  return -1;
}

/** Bytes of numbers, `true`, `false` and `null`. */
function isScalarByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45
  );
}
