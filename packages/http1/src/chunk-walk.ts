import { controlOctet, lowerOctet, tokenOctet } from './octets.ts';

/**
 * Walks the chunked transfer coding (RFC 9112 section 7.1) over octets as they come, without
 * copying or changing them. Strict: CR LF everywhere, at most 8 hex digits, extensions and trailers
 * well-formed and bounded; both are walked over.
 */
export class ChunkWalk {
  #state: State = State.size;
  /** Octets of the chunk's data that are yet to come. */
  #left = 0;
  #digits = 0;
  /** Octets of extensions and trailers so far: they are of no use to anybody here, and bounded. */
  #overhead = 0;
  /** The name of the trailer that is being read, as far as it may be one of `framingNames`. */
  #trailerName = '';
  /** Whether the chunk that the walk is in has an extension, or the trailers have begun. */
  #isAdorned = false;
  /** Where the data of the last walk lies: start, end, start, end, … Reused by the next walk. */
  readonly parts: number[] = [];
  /** Octets of data in the last walk. */
  payload = 0;
  /** Whether the last walk began between two chunks. */
  startedAtBoundary = true;
  /**
   * Behind the last whole chunk of the last walk; -1 when it reached none. Something else could
   * follow there.
   */
  boundary = -1;
  /**
   * Whether the last walk was in no chunk with an extension and no trailer: its octets may be
   * passed on as they are.
   */
  plain = true;

  /** The last chunk and the trailers are behind us. */
  get done(): boolean {
    return this.#state === State.done;
  }

  /** What came is not the chunked coding. */
  get broken(): boolean {
    return this.#state === State.broken;
  }

  /**
   * Walks `bytes[from, to)`. Returns where it stopped: at `to`, behind the end of the body, or
   * anywhere when it is broken.
   */
  walk(bytes: Uint8Array, from: number, to: number): number {
    this.parts.length = 0;
    this.payload = 0;
    this.plain = !this.#isAdorned;
    this.startedAtBoundary = this.#state === State.size && this.#digits === 0;
    this.boundary = this.startedAtBoundary ? from : -1;
    let at = from;
    while (at < to && this.#state !== State.done && this.#state !== State.broken) {
      if (this.#state === State.data) at = this.#takeData(at, to);
      else this.#take(bytes[at++] as number, at);
    }
    return at;
  }

  #takeData(at: number, to: number): number {
    const length = Math.min(this.#left, to - at);
    this.parts.push(at, at + length);
    this.payload += length;
    this.#left -= length;
    if (this.#left === 0) this.#state = State.dataCr;
    return at + length;
  }

  /** @param behind the place behind `octet` */
  #take(octet: number, behind: number): void {
    switch (this.#state) {
      case State.size:
        this.#takeSize(octet);
        break;
      case State.extensionName:
      case State.extensionNameRest:
      case State.extensionValue:
      case State.extensionToken:
      case State.extensionQuoted:
      case State.extensionEscaped:
      case State.extensionEnd:
        this.#takeExtension(octet);
        break;
      case State.sizeLf:
        this.#digits = 0;
        if (octet !== LF) this.#state = State.broken;
        else this.#state = this.#left === 0 ? State.trailerStart : State.data;
        break;
      case State.dataCr:
        this.#state = octet === CR ? State.dataLf : State.broken;
        break;
      case State.dataLf:
        if (octet === LF) this.#endChunk(State.size, behind);
        else this.#state = State.broken;
        break;
      case State.trailerStart:
        if (octet === CR) this.#state = State.lastLf;
        else this.#takeTrailer(octet);
        break;
      case State.trailerName:
      case State.trailerValue:
        this.#takeTrailer(octet);
        break;
      case State.trailerLf:
        this.#state = octet === LF ? State.trailerStart : State.broken;
        break;
      case State.lastLf:
        if (octet === LF) this.#endChunk(State.done, behind);
        else this.#state = State.broken;
        break;
    }
  }

  #endChunk(next: State, behind: number): void {
    this.#state = next;
    this.#isAdorned = false;
    this.boundary = behind;
  }

  #takeSize(octet: number): void {
    const digit = hexDigit[octet] as number;
    if (digit >= 0) {
      this.#left = this.#digits === 0 ? digit : this.#left * 16 + digit;
      if (++this.#digits > maxSizeDigits) this.#state = State.broken;
    } else if (this.#digits === 0) this.#state = State.broken;
    else if (octet === CR) this.#state = State.sizeLf;
    else if (octet === SEMICOLON) this.#state = this.#adorned(State.extensionName);
    else this.#state = State.broken;
  }

  #takeExtension(octet: number): void {
    if (++this.#overhead > maxOverhead) this.#state = State.broken;
    else this.#state = nextInExtension(this.#state, octet);
  }

  #takeTrailer(octet: number): void {
    if (++this.#overhead > maxOverhead) this.#state = State.broken;
    else this.#state = this.#adorned(nextInTrailer(this.#state, octet));
    this.#checkTrailerName(octet);
  }

  /** What frames a message stands in its head: who heeded it here would see another message. */
  #checkTrailerName(octet: number): void {
    if (this.#state === State.trailerName) {
      if (this.#trailerName.length <= longestFramingName) {
        this.#trailerName += String.fromCharCode(lowerOctet[octet] as number);
      }
    } else {
      if (framingNames.has(this.#trailerName)) this.#state = State.broken;
      this.#trailerName = '';
    }
  }

  #adorned(next: State): State {
    this.#isAdorned = true;
    this.plain = false;
    return next;
  }
}

/**
 * `;name`, `;name=token` or `;name="quoted"` (RFC 9112 section 7.1.1), without blanks, which nobody
 * may send.
 */
function nextInExtension(state: State, octet: number): State {
  switch (state) {
    case State.extensionName:
      return tokenOctet[octet] === 1 ? State.extensionNameRest : State.broken;
    case State.extensionNameRest:
      if (tokenOctet[octet] === 1) return State.extensionNameRest;
      return octet === EQUALS ? State.extensionValue : nextBehindExtension(octet);
    case State.extensionValue:
      if (octet === QUOTE) return State.extensionQuoted;
      return tokenOctet[octet] === 1 ? State.extensionToken : State.broken;
    case State.extensionToken:
      return tokenOctet[octet] === 1 ? State.extensionToken : nextBehindExtension(octet);
    case State.extensionQuoted:
      if (octet === QUOTE) return State.extensionEnd;
      if (octet === BACKSLASH) return State.extensionEscaped;
      return controlOctet[octet] === 1 ? State.broken : State.extensionQuoted;
    case State.extensionEscaped:
      return controlOctet[octet] === 1 ? State.broken : State.extensionQuoted;
    default:
      return nextBehindExtension(octet);
  }
}

function nextBehindExtension(octet: number): State {
  if (octet === CR) return State.sizeLf;
  return octet === SEMICOLON ? State.extensionName : State.broken;
}

/** Field lines, as in a head. */
function nextInTrailer(state: State, octet: number): State {
  if (state === State.trailerValue) {
    if (octet === CR) return State.trailerLf;
    return controlOctet[octet] === 1 ? State.broken : State.trailerValue;
  }
  if (tokenOctet[octet] === 1) return State.trailerName;
  return octet === COLON && state === State.trailerName ? State.trailerValue : State.broken;
}

const State = {
  size: 0,
  sizeLf: 1,
  extensionName: 2,
  extensionNameRest: 3,
  extensionValue: 4,
  extensionToken: 5,
  extensionQuoted: 6,
  extensionEscaped: 7,
  extensionEnd: 8,
  data: 9,
  dataCr: 10,
  dataLf: 11,
  trailerStart: 12,
  trailerName: 13,
  trailerValue: 14,
  trailerLf: 15,
  lastLf: 16,
  done: 17,
  broken: 18,
} as const;
type State = (typeof State)[keyof typeof State];

const CR = 0x0d;
const LF = 0x0a;
const QUOTE = 0x22;
const COLON = 0x3a;
const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const BACKSLASH = 0x5c;
const maxSizeDigits = 8;
const framingNames: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding']);
const longestFramingName = 'transfer-encoding'.length;
/** Octets of extensions and trailers in one body. */
const maxOverhead = 8192;

const hexDigit = new Int8Array(256).fill(-1);
for (let digit = 0; digit < 16; digit++) {
  const character = digit.toString(16);
  hexDigit[character.charCodeAt(0)] = digit;
  hexDigit[character.toUpperCase().charCodeAt(0)] = digit;
}

/** One chunk; `data` has a character for each octet. */
export function chunkOf(data: string): string {
  return `${data.length.toString(16)}\r\n${data}\r\n`;
}

/** What ends a chunked body. */
export const lastChunk = '0\r\n\r\n';
