import { isNameAt, isToken } from './octets.ts';

/** Header fields as Node and undici give them raw: name, value, name, value, … */
export type FlatHeaders = string[];

/**
 * Header fields, either as the lines of a message head (each with its CR LF) or as a flat list.
 * Each form is made from the other once, on demand: a field that only passes through
 * never becomes a string of its own. Characters stand for octets, as in Latin-1.
 */
export class HeaderLines {
  #lines: string | undefined;
  #list: FlatHeaders | undefined;

  private constructor(lines: string | undefined, list: FlatHeaders | undefined) {
    this.#lines = lines;
    this.#list = list;
  }

  /** @param lines valid field lines, each ended by CR LF: not checked again */
  static ofLines(lines: string): HeaderLines {
    return new HeaderLines(lines, undefined);
  }

  /**
   * @param list valid names and values: see `headerValueText` for text from elsewhere. Must not
   * change any more.
   */
  static of(list: FlatHeaders): HeaderLines {
    return new HeaderLines(undefined, list);
  }

  /**
   * The field lines, each with its CR LF. Throws a `TypeError` for a name or value that no message
   * may contain.
   */
  get lines(): string {
    this.#lines ??= linesOf(this.#list ?? []);
    return this.#lines;
  }

  get list(): readonly string[] {
    this.#list ??= listOf(this.#lines ?? '');
    return this.#list;
  }

  /** The first value of a field, by its lower-case name. */
  value(lowerName: string): string | undefined {
    return this.#list === undefined ? valueInLines(this.#lines ?? '', lowerName) : headerValue(this.#list, lowerName);
  }
}

/** The values of a field, by its lower-case name, in their order. */
export function headerValues(headers: readonly string[], lowerName: string): string[] {
  const values: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) values.push(headers[i + 1] as string);
  }
  return values;
}

/** The first value of a field, by its lower-case name. */
export function headerValue(headers: readonly string[], lowerName: string): string | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return headers[i + 1];
  }
  return undefined;
}

/** The fields that `keeps` by their lower-case names; order, case and repetition stay. */
export function keptHeaders(headers: readonly string[], keeps: (lowerName: string) => boolean): FlatHeaders {
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (keeps(name.toLowerCase())) kept.push(name, headers[i + 1] as string);
  }
  return kept;
}

/** The fields whose lower-case names are not in `dropped`; order, case and repetition stay. */
export function withoutHeaders(headers: readonly string[], dropped: ReadonlySet<string>): FlatHeaders {
  return keptHeaders(headers, (lowerName) => !dropped.has(lowerName));
}

/** The fields as pairs of name and value. */
export function headerPairs(headers: readonly string[]): [string, string][] {
  return Array.from({ length: headers.length >> 1 }, (_, n) => [
    headers[2 * n] as string,
    headers[2 * n + 1] as string,
  ]);
}

/**
 * The fields with one set: in its first place and spelling and without its repeats, else at the
 * end.
 */
export function withHeader(headers: readonly string[], lowerName: string, value: string): FlatHeaders {
  const kept: FlatHeaders = [];
  let isSet = false;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (name.length !== lowerName.length || name.toLowerCase() !== lowerName) {
      kept.push(name, headers[i + 1] as string);
    } else if (!isSet) {
      kept.push(name, value);
      isSet = true;
    }
  }
  if (!isSet) kept.push(lowerName, value);
  return kept;
}

/** RFC 9110 section 7.6.1, and the older ones that proxies still meet. */
export const hopByHopNames: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

const nothing: ReadonlySet<string> = new Set();

/**
 * What of a message's header fields goes on to the next hop: all but hop-by-hop fields, those that
 * `Connection` names, and `drop` (lower-case names). Order, case and repetition stay.
 */
export function endToEndHeaders(raw: readonly string[], drop: ReadonlySet<string> = nothing): FlatHeaders {
  const named = namedByConnection(raw);
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string;
    const lower = name.toLowerCase();
    if (hopByHopNames.has(lower) || drop.has(lower) || named?.has(lower)) continue;
    kept.push(name, raw[i + 1] as string);
  }
  return kept;
}

function namedByConnection(raw: readonly string[]): Set<string> | undefined {
  let named: Set<string> | undefined;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string;
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue;
    const value = (raw[i + 1] as string).toLowerCase();
    if (value === 'keep-alive' || value === 'close') continue;
    named ??= new Set();
    for (const token of value.split(',')) named.add(token.trim());
  }
  return named;
}

/**
 * Text from a store, the bus or an engine as a header value: every character that is not visible
 * ASCII, and `%`, is percent-encoded as UTF-8. At most `maxLength` characters of it.
 */
export function headerValueText(text: string, maxLength = 256): string {
  const cut = text.length > maxLength ? text.slice(0, maxLength) : text;
  if (plainText.test(cut)) return cut;
  return Buffer.from(cut)
    .toString('latin1')
    .replace(
      /[^\x21-\x24\x26-\x7e]/g,
      (octet) => `%${octet.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
    );
}

const plainText = /^[\x21-\x24\x26-\x7e]*$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be in a value
const forbiddenInValue = /[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]/;

function linesOf(list: readonly string[]): string {
  let lines = '';
  for (let i = 0; i + 1 < list.length; i += 2) {
    const name = list[i] as string;
    const value = list[i + 1] as string;
    if (!isToken(name) || forbiddenInValue.test(value))
      throw new TypeError(`invalid header field: ${JSON.stringify(name)}`);
    lines += `${name}: ${value}\r\n`;
  }
  return lines;
}

function listOf(lines: string): FlatHeaders {
  const list: FlatHeaders = [];
  for (let at = 0; at < lines.length; ) {
    const end = lines.indexOf('\r\n', at);
    const colon = lines.indexOf(':', at);
    list.push(lines.slice(at, colon), withoutBlanks(lines, colon + 1, end));
    at = end + 2;
  }
  return list;
}

/** As `headerValue`, without a string for each field that is passed over. */
function valueInLines(lines: string, lowerName: string): string | undefined {
  for (let at = 0; at < lines.length; ) {
    const colon = at + lowerName.length;
    const end = lines.indexOf('\n', at);
    if (lines.charCodeAt(colon) === 0x3a && isNameAt(lines, at, lowerName)) {
      return withoutBlanks(lines, colon + 1, end - 1);
    }
    at = end + 1;
  }
  return undefined;
}

/** `text[start, end)` without the blanks at its ends (OWS of RFC 9110 section 5.6.3). */
export function withoutBlanks(text: string, start: number, end: number): string {
  let from = start;
  let to = end;
  while (from < to && isBlank(text.charCodeAt(from))) from++;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

function isBlank(octet: number): boolean {
  return octet === 0x20 || octet === 0x09;
}
