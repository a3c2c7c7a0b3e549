import type { Socket } from 'node:net';

/**
 * Octets of further requests that are taken in while one is served; then the client has to wait.
 */
const maxAheadBytes = 65_536;

/**
 * What was read from a client and is not used yet: the beginning of a head, or what follows one.
 */
export class ReadAhead {
  readonly #socket: Socket;
  #paused = false;
  octets: Buffer | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  get length(): number {
    return this.octets?.length ?? 0;
  }

  /** All there is; nothing is left. */
  take(): Buffer | undefined {
    const { octets } = this;
    this.octets = undefined;
    return octets;
  }

  /** Everything kept, followed by the new octets. */
  with(octets: Buffer): Buffer {
    return this.octets === undefined ? octets : Buffer.concat([this.octets, octets]);
  }

  /** Keeps received octets until they are read. */
  keep(octets: Buffer): void {
    this.octets = this.with(octets);
    if (this.octets.length < maxAheadBytes || this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  /** Keeps what follows the first `length` octets of `all`. */
  keepFrom(all: Buffer, length: number): void {
    this.octets = length < all.length ? all.subarray(length) : undefined;
  }

  /** What comes is wanted again. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }
}
