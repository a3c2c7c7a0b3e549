import { HeaderLines, hopByHopNames, withoutBlanks } from './header-lines.ts';
import { controlOctet, tokenOctet } from './octets.ts';

/** Heads of HTTP/1.1 messages (RFC 9112), strict: what is not exactly right is refused, nothing is repaired. */

/** Why a head is refused: fit for a client to read. */
export class InvalidHead extends Error {
  override readonly name = 'InvalidHead';
}

const defaultMaxFields = 256;

/**
 * Which fields a reader of heads looks at beyond those of HTTP itself. Made once: a head is classified in place,
 * and a field that nobody looks at costs no string.
 */
export class FieldInterest {
  /** Whether a name of this length and last letter may be one to look at: few of a message's names are. */
  readonly #candidates = new Uint8Array(maxNameLength * 128);
  readonly #kinds = new Map<string, FieldKind>();
  readonly #noted = new Map<string, number>();
  readonly notedCount: number;

  /**
   * @param fields.noted lower-case names whose first values `MessageHead.noted` gives
   * @param fields.withheld lower-case names that are not passed on, beside the hop-by-hop ones
   */
  constructor({ noted, withheld }: { noted: readonly string[]; withheld: readonly string[] }) {
    for (const name of hopByHopNames) this.#add(name, { goesOn: false });
    for (const name of framingNames) this.#add(name, { goesOn: true });
    for (const name of withheld) this.#add(name, { goesOn: false });
    for (const name of ['connection', 'transfer-encoding']) this.#add(name, { goesOn: false });
    noted.forEach((name, index) => {
      this.#noted.set(name, index);
      if (!this.#kinds.has(name)) this.#add(name, { goesOn: true });
    });
    this.notedCount = noted.length;
    for (const [name, kind] of this.#kinds) kind.notedAt = this.#noted.get(name) ?? -1;
  }

  #add(name: string, { goesOn }: { goesOn: boolean }): void {
    this.#kinds.set(name, { meaning: name, goesOn, notedAt: -1 });
    this.#candidates[name.length * 128 + (name.charCodeAt(name.length - 1) & 0x7f)] = 1;
  }

  /** What the name `text[start, end)` is to this reader; undefined for all others, which just go on. */
  find(text: string, start: number, end: number): FieldKind | undefined {
    const length = end - start;
    if (length >= maxNameLength) return undefined;
    const last = text.charCodeAt(end - 1) | 0x20;
    if (this.#candidates[length * 128 + (last & 0x7f)] !== 1) return undefined;
    return this.#kinds.get(text.slice(start, end).toLowerCase());
  }

  /** Where the first value of a noted name is kept. */
  indexOf(name: string): number {
    const index = this.#noted.get(name);
    if (index === undefined) throw new TypeError(`nobody notes ${name}`);
    return index;
  }
}

interface FieldKind {
  readonly meaning: string;
  readonly goesOn: boolean;
  notedAt: number;
}

const maxNameLength = 64;
const framingNames = ['content-length', 'host', 'expect', 'upgrade'];

/** What the head of a request and of an answer have in common. */
export class MessageHead {
  /** 1 for HTTP/1.1, 0 for HTTP/1.0. */
  minor = 1;
  /** -1 when there is none. */
  contentLength = -1;
  /** `Transfer-Encoding: chunked`, and nothing else. */
  chunked = false;
  /** Whether `Connection` says `close`, or `keep-alive`. */
  close = false;
  keepAlive = false;
  fieldCount = 0;
  /** A transfer coding that is not just `chunked`. */
  otherCoding = false;
  hostCount = 0;
  host = '';
  expect: string | undefined;
  upgrade: string | undefined;
  /** Fields that `Connection` names, other than its own options. */
  named: Set<string> | undefined;
  readonly #noted: (string | undefined)[];
  readonly #interest: FieldInterest;
  #headers: HeaderLines | undefined;

  constructor(interest: FieldInterest) {
    this.#interest = interest;
    this.#noted = new Array(interest.notedCount).fill(undefined);
  }

  /** The fields that go on to the next hop, as they came. */
  get headers(): HeaderLines {
    this.#headers ??= HeaderLines.ofLines('');
    return this.#headers;
  }

  set headers(headers: HeaderLines) {
    this.#headers = headers;
  }

  /** The first value of a field that the reader's `FieldInterest` notes. */
  noted(name: string): string | undefined {
    return this.#noted[this.#interest.indexOf(name)];
  }

  note(index: number, value: string): void {
    this.#noted[index] ??= value;
  }
}

export class RequestHead extends MessageHead {
  method = '';
  /** As the client wrote it. */
  target = '';
}

export class ResponseHead extends MessageHead {
  status = 0;
}

/** Methods that servers know (the IANA registry's, as far as llhttp reads them). */
const methods: ReadonlySet<string> = new Set(
  (
    'GET POST HEAD PUT DELETE OPTIONS PATCH CONNECT TRACE ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY ' +
    'MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE QUERY REBIND REPORT SEARCH SUBSCRIBE UNBIND UNLINK ' +
    'UNLOCK UNSUBSCRIBE'
  ).split(' '),
);

/**
 * Reads the head of a request.
 * @param text the head without the empty line that ends it, a character for each octet
 * @param options.maxFields header fields it may have at most
 * Throws `InvalidHead`.
 */
export function parseRequestHead(
  text: string,
  interest: FieldInterest,
  options: { maxFields: number } = { maxFields: defaultMaxFields },
): RequestHead {
  const head = new RequestHead(interest);
  const lineEnd = endOfFirstLine(text);
  parseRequestLine(text, lineEnd, head);
  parseFields(text, lineEnd + 2, { head, interest, maxFields: options.maxFields });
  if (head.otherCoding || (head.chunked && head.minor === 0)) {
    throw new InvalidHead('the transfer coding of a request is `chunked` or none');
  }
  if (head.hostCount > 1 || (head.minor === 1 && head.hostCount === 0)) {
    throw new InvalidHead('a request names its host, once');
  }
  if (head.hostCount === 1 && !isAuthority(head.host)) throw new InvalidHead('the host is not valid');
  return head;
}

/** Reads the head of an answer; as `parseRequestHead`. */
export function parseResponseHead(
  text: string,
  interest: FieldInterest,
  options: { maxFields: number } = { maxFields: defaultMaxFields },
): ResponseHead {
  const head = new ResponseHead(interest);
  const lineEnd = endOfFirstLine(text);
  parseStatusLine(text, lineEnd, head);
  parseFields(text, lineEnd + 2, { head, interest, maxFields: options.maxFields });
  return head;
}

function endOfFirstLine(text: string): number {
  const end = text.indexOf('\r\n');
  return end < 0 ? text.length : end;
}

/** Checks a request line alone: it is refused as soon as it is there, however long the rest of the head takes. */
function parseRequestLine(text: string, end: number, head: RequestHead): void {
  const space = text.indexOf(' ');
  const secondSpace = text.indexOf(' ', space + 1);
  if (space <= 0 || secondSpace < 0 || end - secondSpace !== ' HTTP/1.1'.length) throw invalidRequestLine();
  head.minor = minorVersion(text, secondSpace + 1);
  if (head.minor < 0) throw invalidRequestLine();
  head.method = space === 4 && text.startsWith('POST') ? 'POST' : text.slice(0, space);
  if (!methods.has(head.method)) throw new InvalidHead('the method is not known');
  for (let i = space + 1; i < secondSpace; i++) {
    const octet = text.charCodeAt(i);
    if (octet <= 0x20 || octet >= 0x7f) throw new InvalidHead('the target of the request is not valid');
  }
  head.target = text.slice(space + 1, secondSpace);
  if (head.target === '') throw invalidRequestLine();
}

function invalidRequestLine(): InvalidHead {
  return new InvalidHead('the request line is not valid HTTP/1.1');
}

function parseStatusLine(text: string, end: number, head: ResponseHead): void {
  head.minor = minorVersion(text, 0);
  const status = Number(digits3.exec(text.slice(8, 12))?.[1] ?? 0);
  if (head.minor < 0 || status < 100 || (end > 12 && text.charCodeAt(12) !== 0x20)) {
    throw new InvalidHead('the status line is not valid HTTP/1.1');
  }
  for (let i = 12; i < end; i++) {
    if (controlOctet[text.charCodeAt(i)] === 1) throw new InvalidHead('the status line has a control character');
  }
  head.status = status;
}

const digits3 = /^ (\d{3})$/;

/** The minor version of `HTTP/1.x` at `at`; -1 for any other text. */
function minorVersion(text: string, at: number): number {
  if (!text.startsWith('HTTP/1.', at)) return -1;
  const minor = text.charCodeAt(at + 7) - 0x30;
  return minor === 0 || minor === 1 ? minor : -1;
}

interface FieldsContext {
  readonly head: MessageHead;
  readonly interest: FieldInterest;
  readonly maxFields: number;
}

/** Checks every field line, takes in what frames the message, and cuts out in runs what goes on. */
function parseFields(text: string, from: number, { head, interest, maxFields }: FieldsContext): void {
  let at = from;
  let runStart = from;
  let lines = '';
  while (at < text.length) {
    const found = text.indexOf('\r\n', at);
    const end = found < 0 ? text.length : found;
    const colon = endOfName(text, at);
    // Also a folded line, a blank before the colon, and a line without one.
    if (colon === at || text.charCodeAt(colon) !== 0x3a) throw new InvalidHead('a header name is not a token');
    for (let i = colon + 1; i < end; i++) {
      if (controlOctet[text.charCodeAt(i)] === 1) throw new InvalidHead('a header value has a control character');
    }
    if (++head.fieldCount > maxFields) throw new InvalidHead(`a message has at most ${maxFields} header fields`);
    const kind = interest.find(text, at, colon);
    if (kind !== undefined) {
      const value = withoutBlanks(text, colon + 1, end);
      takeField(head, kind.meaning, value);
      if (kind.notedAt >= 0) head.note(kind.notedAt, value);
      if (!kind.goesOn) {
        if (at > runStart) lines += text.slice(runStart, at);
        runStart = end + 2;
      }
    }
    at = end + 2;
  }
  // The last line has no line end of its own here.
  if (runStart < text.length) lines += `${text.slice(runStart)}\r\n`;
  if ((head.chunked || head.otherCoding) && head.contentLength >= 0) {
    throw new InvalidHead('content-length and transfer-encoding exclude each other');
  }
  head.headers = HeaderLines.ofLines(lines);
  if (head.named !== undefined) head.headers = HeaderLines.of(withoutNamed(head.headers.list, head.named));
}

function endOfName(text: string, from: number): number {
  let at = from;
  while (tokenOctet[text.charCodeAt(at)] === 1) at++;
  return at;
}

function withoutNamed(list: readonly string[], named: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < list.length; i += 2) {
    if (!named.has((list[i] as string).toLowerCase())) kept.push(list[i] as string, list[i + 1] as string);
  }
  return kept;
}

/** More digits than this are no length of anything; 2^53 has 16. */
const lengthDigits = /^\d{1,15}$/;

function takeField(head: MessageHead, name: string, value: string): void {
  switch (name) {
    case 'content-length':
      if (!lengthDigits.test(value) || head.contentLength >= 0)
        throw new InvalidHead('the content-length is not valid');
      head.contentLength = Number(value);
      break;
    case 'transfer-encoding':
      if (head.chunked || head.otherCoding) throw new InvalidHead('the transfer-encoding is not valid');
      if (value.length === 7 && value.toLowerCase() === 'chunked') head.chunked = true;
      else head.otherCoding = true;
      break;
    case 'connection':
      takeConnection(head, value.toLowerCase());
      break;
    case 'host':
      head.hostCount++;
      head.host = value;
      break;
    case 'expect':
      head.expect = value.toLowerCase();
      break;
    case 'upgrade':
      head.upgrade = value.toLowerCase();
      break;
  }
}

function takeConnection(head: MessageHead, value: string): void {
  if (value === 'keep-alive') head.keepAlive = true;
  else if (value === 'close') head.close = true;
  else {
    for (const item of value.split(',')) {
      const option = item.trim();
      if (option === 'close') head.close = true;
      else if (option === 'keep-alive') head.keepAlive = true;
      else {
        head.named ??= new Set();
        head.named.add(option);
      }
    }
  }
}

const authority = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::\d{0,5})?$/;

/** Whether `text` is a host with or without a port (RFC 3986 section 3.2). */
export function isAuthority(text: string): boolean {
  return authority.test(text);
}

/**
 * Whether the beginning of a head can still become one. False as soon as it cannot, so that a client that speaks
 * something else is not waited for.
 * @param text what came so far, without the end of the head
 */
export function mayBecomeRequest(text: string, interest: FieldInterest): boolean {
  for (let i = 0; i < text.length; i++) {
    const octet = text.charCodeAt(i);
    if (controlOctet[octet] === 0) continue;
    // A line ends in CR LF; the last CR may still get its LF.
    if (octet !== 0x0d || (i + 1 < text.length && text.charCodeAt(i + 1) !== 0x0a)) return false;
    i++;
  }
  const end = text.indexOf('\r\n');
  if (end < 0) return tokenOctet[text.charCodeAt(0)] === 1 || text === '';
  try {
    parseRequestLine(text, end, new RequestHead(interest));
    return true;
  } catch {
    return false;
  }
}
