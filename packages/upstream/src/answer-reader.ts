import {
  ChunkWalk,
  FieldInterest,
  type HeaderLines,
  InvalidHead,
  type ResponseHead as ParsedHead,
  parseResponseHead,
} from '@llm-gateway/http1';
import { type ResponseHead, requestIdNames } from './call.ts';

/** What an answer consists of, as it is read. */
export interface AnswerTarget {
  onInformation(headers: HeaderLines): void;
  onHead(head: ResponseHead): void;
  /** Bytes of a body that is not chunked: `bytes[from, to)`, never empty. */
  onBytes(bytes: Buffer, from: number, to: number): void;
  /**
   * What `walk` has just walked over, `bytes[from, to)`, with data in it. The data may be moved
   * within these bytes.
   */
  onChunks(bytes: Buffer, from: number, to: number, walk: ChunkWalk): void;
}

/** What a read has come to. */
export type Reading =
  | 'more'
  /** The answer has come to its end. */
  | 'whole'
  /** What came is not HTTP. */
  | 'protocol'
  /** What came after the head is not the chunked coding. */
  | 'truncated';

/**
 * What a reader of answers looks at in their heads.
 * @param withheld lower-case names that no upstream may set in an answer
 */
export function answerInterest(withheld: readonly string[]): FieldInterest {
  return new FieldInterest({ noted: ['keep-alive', ...requestIdNames], withheld });
}

/** Of one head. */
const maxHeadBytes = 65_536;
const endOfHead = Buffer.from('\r\n\r\n');
const bareEndOfHead = Buffer.from('\n\n');
const versionPrefix = Buffer.from('HTTP/1.');

/** Searched for only when it is needed, which is rare. */
class AnswerHead implements ResponseHead {
  readonly status: number;
  readonly headers: HeaderLines;
  readonly #parsed: ParsedHead;

  constructor(parsed: ParsedHead) {
    this.status = parsed.status;
    this.headers = parsed.headers;
    this.#parsed = parsed;
  }

  get requestId(): string | undefined {
    for (const name of requestIdNames) {
      const id = this.#parsed.noted(name);
      if (id !== undefined) return id;
    }
    return undefined;
  }
}

/**
 * Reads answers of HTTP/1.1 (RFC 9112), one after the other, from the bytes of one connection.
 * Strict, and without a copy of what is whole.
 */
export class AnswerReader {
  readonly #interest: FieldInterest;
  #mode: Mode = Mode.head;
  #bodiless = false;
  /** A head of which a part came, in `#partial[0, #partialBytes)`. */
  #partial: Buffer | undefined;
  #partialBytes = 0;
  /** Octets yet to come of a body with a length. */
  #left = 0;
  #walk: ChunkWalk | undefined;
  /** Whether any part of the answer arrived, even if only informational. */
  begun = false;
  /** Whether its final head came. */
  headSeen = false;
  /** Whether its connection may carry another answer after it. */
  reusable = true;
  /**
   * How long the server keeps the connection when it is idle, by its `Keep-Alive: timeout`;
   * undefined: it does not say.
   */
  keepAliveMs: number | undefined;

  constructor(interest: FieldInterest) {
    this.#interest = interest;
  }

  /** @param bodiless whether the request was one whose answer has no body (`HEAD`) */
  begin(bodiless: boolean): void {
    this.#mode = Mode.head;
    this.#bodiless = bodiless;
    this.begun = false;
    this.headSeen = false;
    this.reusable = true;
  }

  /** Whether only the end of the connection is left to mark the end of the answer. */
  get endsWithConnection(): boolean {
    return this.#mode === Mode.untilClose;
  }

  /**
   * Reads `bytes[0, length)`. Bytes that follow the answer make its connection one that is not
   * reusable.
   */
  read(bytes: Buffer, length: number, target: AnswerTarget): Reading {
    this.begun = true;
    if (this.#mode !== Mode.head) return this.#readBody({ bytes, from: 0, to: length, target });
    if (this.#partial === undefined) return this.#readHeads({ bytes, from: 0, to: length, target }, 0);
    const searched = Math.max(0, this.#partialBytes - endOfHead.length + 1);
    this.#append(bytes, length);
    return this.#readHeads({ bytes: this.#partial, from: 0, to: this.#partialBytes, target }, searched);
  }

  #append(bytes: Buffer, length: number): void {
    const total = this.#partialBytes + length;
    let partial = this.#partial as Buffer;
    if (partial.length < total) {
      partial = Buffer.alloc(2 * total);
      (this.#partial as Buffer).copy(partial, 0, 0, this.#partialBytes);
      this.#partial = partial;
    }
    bytes.copy(partial, this.#partialBytes, 0, length);
    this.#partialBytes = total;
  }

  /** Reads heads up to the final one, and what follows it. `searched`: before it no head ends. */
  #readHeads(piece: Piece, searched: number): Reading {
    const { bytes, to, target } = piece;
    let from = piece.from;
    let end = bytes.indexOf(endOfHead, searched);
    while (end >= 0 && end + endOfHead.length <= to) {
      if (end - from > maxHeadBytes) return 'protocol';
      const taken = this.#takeHead(bytes.toString('latin1', from, end), target);
      if (taken === 'protocol') return taken;
      from = end + endOfHead.length;
      if (taken === 'whole') {
        this.#partial = undefined;
        return this.#readBody({ bytes, from, to, target });
      }
      end = bytes.indexOf(endOfHead, from);
    }
    return this.#keepPartial({ bytes, from, to, target }, Math.max(from, searched));
  }

  /** Keeps the part of a head that came, unless it can become none. */
  #keepPartial({ bytes, from, to }: Piece, searched: number): Reading {
    const length = to - from;
    if (length > maxHeadBytes) return 'protocol';
    const compared = Math.min(length, versionPrefix.length);
    if (compared > 0 && bytes.compare(versionPrefix, 0, compared, from, from + compared) !== 0) return 'protocol';
    const bareEnd = bytes.indexOf(bareEndOfHead, searched);
    if (bareEnd >= 0 && bareEnd + bareEndOfHead.length <= to) return 'protocol';
    if (length === 0) this.#partial = undefined;
    else if (bytes !== this.#partial || from > 0) {
      this.#partial = Buffer.from(bytes.subarray(from, to));
      this.#partialBytes = length;
    }
    return 'more';
  }

  /** `more` after an informational head, `whole` when the final head is taken. */
  #takeHead(text: string, target: AnswerTarget): Reading {
    let head: ReturnType<typeof parseResponseHead>;
    try {
      head = parseResponseHead(text, this.#interest);
    } catch (error) {
      if (error instanceof InvalidHead) return 'protocol';
      throw error;
    }
    const { status } = head;
    // Nobody asked for another protocol.
    if (status === 101) return 'protocol';
    if (status < 200) {
      target.onInformation(head.headers);
      return 'more';
    }
    this.headSeen = true;
    this.reusable = !head.close && (head.minor === 1 || (head.keepAlive && !head.chunked));
    this.keepAliveMs = keepAliveMsOf(head.noted('keep-alive'));
    if (this.#bodiless || status === 204 || status === 304) this.#expectLength(0);
    else if (head.chunked) {
      this.#walk = new ChunkWalk();
      this.#mode = Mode.chunked;
    } else if (head.otherCoding) return 'protocol';
    else if (head.contentLength >= 0) this.#expectLength(head.contentLength);
    else {
      this.reusable = false;
      this.#mode = Mode.untilClose;
    }
    target.onHead(new AnswerHead(head));
    return 'whole';
  }

  #expectLength(length: number): void {
    this.#left = length;
    this.#mode = Mode.length;
  }

  #readBody(piece: Piece): Reading {
    switch (this.#mode) {
      case Mode.length:
        return this.#readLength(piece);
      case Mode.chunked:
        return this.#readChunks(piece);
      default:
        if (piece.from < piece.to) piece.target.onBytes(piece.bytes, piece.from, piece.to);
        return 'more';
    }
  }

  #readLength({ bytes, from, to, target }: Piece): Reading {
    const end = Math.min(to, from + this.#left);
    this.#left -= end - from;
    if (end < to) this.reusable = false;
    if (from < end) target.onBytes(bytes, from, end);
    return this.#left === 0 ? 'whole' : 'more';
  }

  #readChunks({ bytes, from, to, target }: Piece): Reading {
    const walk = this.#walk as ChunkWalk;
    const end = walk.walk(bytes, from, to);
    if (walk.payload > 0) target.onChunks(bytes, from, end, walk);
    if (walk.broken) return 'truncated';
    if (!walk.done) return 'more';
    if (end < to) this.reusable = false;
    this.#walk = undefined;
    return 'whole';
  }
}

/** `bytes[from, to)`, and who it is for. */
interface Piece {
  readonly bytes: Buffer;
  readonly from: number;
  readonly to: number;
  readonly target: AnswerTarget;
}

const Mode = { head: 0, length: 1, chunked: 2, untilClose: 3 } as const;
type Mode = (typeof Mode)[keyof typeof Mode];

function keepAliveMsOf(value: string | undefined): number | undefined {
  const seconds = value === undefined ? undefined : /(?:^|[\s,])timeout=(\d{1,6})(?:$|[\s,])/i.exec(value)?.[1];
  return seconds === undefined ? undefined : Number(seconds) * 1000;
}
