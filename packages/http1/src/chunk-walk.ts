import { controlOctet } from './octets.ts';

/**
 * Walks the chunked transfer coding (RFC 9112 section 7.1) over octets as they come, without copying or changing
 * them. Strict: CR LF everywhere, at most 8 hex digits, extensions and trailers bounded; both are walked over.
 */
export class ChunkWalk {
  #state: State = State.size;
  /** Octets of the chunk's data that are yet to come. */
  #left = 0;
  #digits = 0;
  /** Octets of extensions and trailers so far: they are of no use to anybody here, and bounded. */
  #overhead = 0;
  /** Where the data of the last walk lies: start, end, start, end, … Reused by the next walk. */
  readonly parts: number[] = [];
  /** Octets of data in the last walk. */
  payload = 0;
  /** Whether the last walk began between two chunks. */
  startedAtBoundary = true;
  /** Behind the last whole chunk of the last walk; -1 when it reached none. Something else could follow there. */
  boundary = -1;
  /** Whether the last walk met no extension and no trailer: then its octets may be passed on as they are. */
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
   * Walks `bytes[from, to)`. Returns where it stopped: at `to`, behind the end of the body, or anywhere when it is
   * broken.
   */
  walk(bytes: Uint8Array, from: number, to: number): number {
    this.parts.length = 0;
    this.payload = 0;
    this.plain = true;
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
      case State.extension:
        this.plain = false;
        if (octet === CR) this.#state = State.sizeLf;
        else if (controlOctet[octet] === 1 || ++this.#overhead > maxOverhead) this.#state = State.broken;
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
        this.#state = octet === LF ? State.size : State.broken;
        this.boundary = behind;
        break;
      case State.trailerStart:
        if (octet === CR) this.#state = State.lastLf;
        else this.#takeTrailer(octet);
        break;
      case State.trailer:
        this.#takeTrailer(octet);
        break;
      case State.trailerLf:
        this.#state = octet === LF ? State.trailerStart : State.broken;
        break;
      case State.lastLf:
        this.#state = octet === LF ? State.done : State.broken;
        this.boundary = behind;
        break;
    }
  }

  #takeSize(octet: number): void {
    const digit = hexDigit[octet] as number;
    if (digit >= 0) {
      this.#left = this.#digits === 0 ? digit : this.#left * 16 + digit;
      if (++this.#digits > maxSizeDigits) this.#state = State.broken;
    } else if (this.#digits === 0) this.#state = State.broken;
    else if (octet === CR) this.#state = State.sizeLf;
    else if (octet === SEMICOLON) this.#state = State.extension;
    else this.#state = State.broken;
  }

  #takeTrailer(octet: number): void {
    this.plain = false;
    this.#state = State.trailer;
    if (octet === CR) this.#state = State.trailerLf;
    else if (controlOctet[octet] === 1 || ++this.#overhead > maxOverhead) this.#state = State.broken;
  }
}

const State = {
  size: 0,
  extension: 1,
  sizeLf: 2,
  data: 3,
  dataCr: 4,
  dataLf: 5,
  trailerStart: 6,
  trailer: 7,
  trailerLf: 8,
  lastLf: 9,
  done: 10,
  broken: 11,
} as const;
type State = (typeof State)[keyof typeof State];

const CR = 0x0d;
const LF = 0x0a;
const SEMICOLON = 0x3b;
const maxSizeDigits = 8;
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
