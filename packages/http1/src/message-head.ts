import { isAuthority } from './authority.ts';
import { HeaderLines, hopByHopNames, withoutBlanks, withoutHeaders } from './header-lines.ts';
import { controlOctet, isNameAt, isToken, lowerOctet, tokenOctet } from './octets.ts';

/**
 * Heads of HTTP/1.1 messages (RFC 9112), strict: what is not exactly right is refused, nothing is
 * repaired.
 */

/** Why a head is refused: fit for a client to read. */
export class InvalidHead extends Error {
  override readonly name = 'InvalidHead';
  /** Valid, but of more fields than a head may have. */
  readonly tooMany: boolean;

  constructor(message: string, tooMany = false) {
    super(message);
    this.tooMany = tooMany;
  }
}

const defaultOptions = { maxFields: 256 };

/** What a field means to HTTP itself. */
const Meaning = {
  none: 0,
  contentLength: 1,
  transferEncoding: 2,
  connection: 3,
  host: 4,
  expect: 5,
  upgrade: 6,
} as const;
type Meaning = (typeof Meaning)[keyof typeof Meaning];

const meanings: ReadonlyMap<string, Meaning> = new Map([
  ['content-length', Meaning.contentLength],
  ['transfer-encoding', Meaning.transferEncoding],
  ['connection', Meaning.connection],
  ['host', Meaning.host],
  ['expect', Meaning.expect],
  ['upgrade', Meaning.upgrade],
]);

interface FieldKind {
  /** In lower case. */
  readonly name: string;
  readonly meaning: Meaning;
  readonly goesOn: boolean;
  /** Its place among the noted names; -1 for a field that is not noted. */
  readonly notedAt: number;
}

const maxNameLength = 64;

/**
 * Which fields a reader of heads looks at beyond those of HTTP itself. Made once: a head is
 * classified in place, and an unread field costs no string.
 */
export class FieldInterest {
  /**
   * Kinds by the length and last character of their names: few names of a message share both with
   * one of them.
   */
  readonly #kinds = new Array<FieldKind[] | undefined>(maxNameLength * 128).fill(undefined);
  readonly #noted = new Map<string, number>();

  /**
   * @param fields.noted lower-case names whose first values `MessageHead.noted` gives
   * @param fields.withheld lower-case names that are not passed on, in addition to the hop-by-hop ones
   * Throws a `TypeError` for a name that is not in lower case, or has 64 characters or more.
   */
  constructor({ noted, withheld }: { noted: readonly string[]; withheld: readonly string[] }) {
    for (const name of new Set(noted)) this.#noted.set(name, this.#noted.size);
    const dropped = new Set([...hopByHopNames, ...withheld]);
    for (const name of new Set([...meanings.keys(), ...dropped, ...noted])) {
      if (!isToken(name) || name !== name.toLowerCase() || name.length >= maxNameLength) {
        throw new TypeError(`not a name to look for: ${name}`);
      }
      const kind: FieldKind = {
        name,
        meaning: meanings.get(name) ?? Meaning.none,
        goesOn: !dropped.has(name),
        notedAt: this.#noted.get(name) ?? -1,
      };
      const shape = shapeOf(name, 0, name.length);
      this.#kinds[shape] = [...(this.#kinds[shape] ?? []), kind];
    }
  }

  /**
   * What the name `text[start, end)` is to this reader; undefined for all others, which just go on.
   */
  find(text: string, start: number, end: number): FieldKind | undefined {
    if (end - start >= maxNameLength) return undefined;
    const kinds = this.#kinds[shapeOf(text, start, end)];
    if (kinds === undefined) return undefined;
    for (const kind of kinds) if (isNameAt(text, start, kind.name)) return kind;
    return undefined;
  }

  /** Where the first value of a noted name is kept. */
  indexOf(name: string): number {
    const index = this.#noted.get(name);
    if (index === undefined) throw new TypeError(`nobody notes ${name}`);
    return index;
  }
}

function shapeOf(text: string, start: number, end: number): number {
  return (end - start) * 128 + (lowerOctet[text.charCodeAt(end - 1)] as number);
}

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
  /** First values of noted fields; made with the first of them. */
  #noted: (string | undefined)[] | undefined;
  readonly #interest: FieldInterest;
  #headers: HeaderLines | undefined;

  constructor(interest: FieldInterest) {
    this.#interest = interest;
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
    const index = this.#interest.indexOf(name);
    return this.#noted?.[index];
  }

  note(index: number, value: string): void {
    this.#noted ??= [];
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

/**
 * Methods that servers know (the IANA registry's, as far as llhttp reads them). CONNECT is for
 * proxies: what follows its head is no request.
 */
const methods: ReadonlySet<string> = new Set(
  (
    'GET POST HEAD PUT DELETE OPTIONS PATCH TRACE ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY ' +
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
  options: { maxFields: number } = defaultOptions,
): RequestHead {
  const head = new RequestHead(interest);
  const lineEnd = endOfFirstLine(text);
  parseRequestLine(text, lineEnd, head);
  head.headers = parseFields(text, lineEnd + 2, { head, interest, maxFields: options.maxFields });
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
  options: { maxFields: number } = defaultOptions,
): ResponseHead {
  const head = new ResponseHead(interest);
  const lineEnd = endOfFirstLine(text);
  parseStatusLine(text, lineEnd, head);
  head.headers = parseFields(text, lineEnd + 2, { head, interest, maxFields: options.maxFields });
  return head;
}

function endOfFirstLine(text: string): number {
  const end = text.indexOf('\r\n');
  return end < 0 ? text.length : end;
}

/**
 * Checks a request line alone: it is refused as soon as it is there, however long the rest of the
 * head takes.
 */
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
    if (octet <= 0x20 || octet >= 0x7f) throw new InvalidHead('the request target is not valid');
  }
  head.target = text.slice(space + 1, secondSpace);
  if (head.target === '') throw invalidRequestLine();
}

function invalidRequestLine(): InvalidHead {
  return new InvalidHead('the request line is not valid HTTP/1.1');
}

function parseStatusLine(text: string, end: number, head: ResponseHead): void {
  head.minor = minorVersion(text, 0);
  head.status = statusAt(text, ' '.length + 'HTTP/1.1'.length);
  const isSpaced = text.charCodeAt(8) === 0x20 && (end === 12 || text.charCodeAt(12) === 0x20);
  // Above 599 no status has a meaning (RFC 9110 section 15).
  if (head.minor < 0 || head.status < 100 || head.status > 599 || end < 12 || !isSpaced) {
    throw new InvalidHead('the status line is not valid HTTP/1.1');
  }
  for (let i = 12; i < end; i++) {
    if (controlOctet[text.charCodeAt(i)] === 1) throw new InvalidHead('the status line has a control character');
  }
}

/** The three digits at `at`; -1 for any other text. */
function statusAt(text: string, at: number): number {
  let status = 0;
  for (let i = at; i < at + 3; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (!(digit >= 0 && digit <= 9)) return -1;
    status = status * 10 + digit;
  }
  return status;
}

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
function parseFields(text: string, from: number, { head, interest, maxFields }: FieldsContext): HeaderLines {
  let at = from;
  let runStart = from;
  let lines = '';
  while (at < text.length) {
    const colon = endOfName(text, at);
    // Also a folded line, a blank before the colon, and a line without one.
    if (colon === at || text.charCodeAt(colon) !== 0x3a) throw new InvalidHead('a header name is not a token');
    const end = endOfValue(text, colon + 1);
    if (++head.fieldCount > maxFields) {
      throw new InvalidHead(`a message has at most ${maxFields} header fields`, true);
    }
    const kind = interest.find(text, at, colon);
    if (kind !== undefined) {
      // Parsers differ on this one: some see another coding.
      if (kind.meaning === Meaning.transferEncoding && text.charCodeAt(end - 1) === 0x09) throw invalidCoding();
      if (kind.meaning !== Meaning.none || kind.notedAt >= 0)
        takeField(head, kind, withoutBlanks(text, colon + 1, end));
      if (!kind.goesOn) {
        if (at > runStart) lines += text.slice(runStart, at);
        runStart = end + 2;
      }
    }
    at = end + 2;
  }
  // The last line has no line end of its own here: one that has would end the head in `lines`.
  if (at === text.length) throw new InvalidHead('a header name is not a token');
  if (runStart < text.length) lines += `${text.slice(runStart)}\r\n`;
  if ((head.chunked || head.otherCoding) && head.contentLength >= 0) {
    throw new InvalidHead('content-length and transfer-encoding exclude each other');
  }
  const headers = HeaderLines.ofLines(lines);
  return head.named === undefined ? headers : HeaderLines.of(withoutHeaders(headers.list, head.named));
}

function endOfName(text: string, from: number): number {
  let at = from;
  while (at < text.length && tokenOctet[text.charCodeAt(at)] === 1) at++;
  return at;
}

/** Where the line ends that `from` is in: at its CR LF, or at the end of the text. */
function endOfValue(text: string, from: number): number {
  let at = from;
  while (at < text.length && controlOctet[text.charCodeAt(at)] === 0) at++;
  if (at < text.length && (text.charCodeAt(at) !== 0x0d || text.charCodeAt(at + 1) !== 0x0a)) {
    throw new InvalidHead('a header value has a control character');
  }
  return at;
}

/** More digits than this are no length of anything; 2^53 has 16. */
const lengthDigits = /^\d{1,15}$/;

function takeField(head: MessageHead, { meaning, notedAt }: FieldKind, value: string): void {
  if (notedAt >= 0) head.note(notedAt, value);
  switch (meaning) {
    case Meaning.none:
      break;
    case Meaning.contentLength:
      if (!lengthDigits.test(value) || head.contentLength >= 0) {
        throw new InvalidHead('the content-length is not valid');
      }
      head.contentLength = Number(value);
      break;
    case Meaning.transferEncoding:
      if (head.chunked || head.otherCoding) throw invalidCoding();
      if (value.length === 7 && value.toLowerCase() === 'chunked') head.chunked = true;
      else head.otherCoding = true;
      break;
    case Meaning.connection:
      takeConnection(head, value.toLowerCase());
      break;
    case Meaning.host:
      head.hostCount++;
      head.host = value;
      break;
    case Meaning.expect:
      head.expect = value.toLowerCase();
      break;
    case Meaning.upgrade:
      head.upgrade = value.toLowerCase();
      break;
  }
}

function invalidCoding(): InvalidHead {
  return new InvalidHead('the transfer-encoding is not valid');
}

function takeConnection(head: MessageHead, value: string): void {
  if (value === 'keep-alive') head.keepAlive = true;
  else if (value === 'close') head.close = true;
  else {
    for (const item of value.split(',')) {
      const option = withoutBlanks(item, 0, item.length);
      if (option === 'close') head.close = true;
      else if (option === 'keep-alive') head.keepAlive = true;
      else if (option !== '') {
        head.named ??= new Set();
        head.named.add(option);
      }
    }
  }
}

/**
 * Whether the beginning of a head can still become one. False as soon as it cannot, so that a
 * client that speaks something else is not waited for.
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
