import { ChunkWalk } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import type { Holding } from '../body/body-budget.ts';

/**
 * The first buffer of a body that comes in several pieces; it grows by this factor until it holds
 * all.
 */
const firstBytes = 65_536;
const growth = 4;
/** A body is copied into a buffer of its size when more than this part of its buffer is empty. */
const maxEmptyShare = 1 / 16;

/**
 * Takes a request's body from the octets of its connection: held once, in a buffer that grows with
 * what came and not with what was announced, and accounted for before it is allocated.
 */
export class BodyReader {
  readonly #maxBytes: number;
  readonly #holding: Holding;
  /** What the head announced; -1 for a chunked body. */
  readonly #length: number;
  readonly #walk: ChunkWalk | undefined;
  #buffer: Buffer = nothing;
  #bytes = 0;
  done: boolean;

  /**
   * @param framing what the head says of the body
   * @param limits.maxBytes the largest body
   * Throws `GatewayError` `body_too_large` when the announced length says so.
   */
  constructor(
    framing: { contentLength: number; chunked: boolean },
    { maxBytes, holding }: { maxBytes: number; holding: Holding },
  ) {
    this.#maxBytes = maxBytes;
    this.#holding = holding;
    this.#length = framing.chunked ? -1 : Math.max(0, framing.contentLength);
    if (this.#length > maxBytes) throw tooLarge(maxBytes);
    if (framing.chunked) this.#walk = new ChunkWalk();
    this.done = this.#length === 0;
  }

  /** What came so far of the body. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The body, once `done`. */
  get body(): Buffer {
    return this.#buffer;
  }

  /**
   * Takes what of `octets[from, …)` belongs to the body. Returns where it ends. Throws
   * `GatewayError`: `body_too_large`, `overloaded` when the budget is used up, `invalid_request`
   * for broken chunks.
   */
  take(octets: Buffer, from: number): number {
    return this.#walk === undefined ? this.#takePlain(octets, from) : this.#takeChunked(octets, from, this.#walk);
  }

  #takePlain(octets: Buffer, from: number): number {
    const end = Math.min(octets.length, from + this.#length - this.#bytes);
    if (this.#bytes === 0 && end - from === this.#length) {
      // Most bodies come whole with their head: nothing is copied.
      this.#hold(this.#length);
      this.#buffer = octets.subarray(from, end);
      this.#bytes = this.#length;
    } else this.#append(octets, from, end);
    this.done = this.#bytes === this.#length;
    return end;
  }

  #takeChunked(octets: Buffer, from: number, walk: ChunkWalk): number {
    const end = walk.walk(octets, from, octets.length);
    if (walk.broken) throw new GatewayError('invalid_request', 'the body is not valid chunked encoding');
    if (this.#bytes + walk.payload > this.#maxBytes) throw tooLarge(this.#maxBytes);
    const { parts } = walk;
    for (let i = 0; i + 1 < parts.length; i += 2) this.#append(octets, parts[i] as number, parts[i + 1] as number);
    if (walk.done) this.#trim();
    this.done = walk.done;
    return end;
  }

  #append(octets: Buffer, from: number, to: number): void {
    this.#makeRoom(this.#bytes + to - from);
    octets.copy(this.#buffer, this.#bytes, from, to);
    this.#bytes += to - from;
  }

  #makeRoom(bytes: number): void {
    if (bytes <= this.#buffer.length) return;
    const most = this.#length < 0 ? this.#maxBytes : this.#length;
    this.#resize(Math.min(most, Math.max(bytes, firstBytes, this.#buffer.length * growth)));
  }

  /** The end of a chunked body was not known when its buffer was made. */
  #trim(): void {
    if (this.#buffer.length - this.#bytes > this.#buffer.length * maxEmptyShare) this.#resize(this.#bytes);
    else this.#buffer = this.#buffer.subarray(0, this.#bytes);
  }

  #resize(size: number): void {
    const held = this.#buffer.length;
    this.#hold(size);
    const larger = Buffer.allocUnsafeSlow(size);
    this.#buffer.copy(larger, 0, 0, this.#bytes);
    this.#buffer = larger;
    this.#holding.free(held);
  }

  #hold(bytes: number): void {
    if (!this.#holding.hold(bytes)) {
      throw new GatewayError('overloaded', 'the gateway has no memory left for request bodies at the moment');
    }
  }
}

const nothing = Buffer.alloc(0);

function tooLarge(maxBytes: number): GatewayError {
  return new GatewayError('body_too_large', `the body is larger than ${maxBytes} bytes`);
}
