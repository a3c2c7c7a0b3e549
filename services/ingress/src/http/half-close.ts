import type { ConnectionOutput } from './connection-output.ts';

/**
 * A client that closes its side this soon after its request waits for the answer (RFC 9112 section
 * 9.6).
 */
const halfCloseMs = 5;
/**
 * When a client that has closed its side with its request is probed, and the second time: fast
 * answers come first.
 */
const probeLateMs = 5;
const probeAgainMs = 20;
export const continueHead = 'HTTP/1.1 100 Continue\r\n\r\n';

/**
 * Tells a client that closed its side of the connection and waits for its answer from one that is
 * gone: to the socket the two look the same.
 */
export class HalfClose {
  readonly #output: ConnectionOutput;
  /** Runs while an end of the input would still belong to the last data. */
  #timer: NodeJS.Timeout | undefined;

  constructor(output: ConnectionOutput) {
    this.#output = output;
  }

  /**
   * Octets of a request of HTTP/1.0 came. By turns of the event loop and not by the clock: an end
   * that came with the request may have waited for what that cost.
   */
  expect(): void {
    clearTimeout(this.#timer);
    const over = () => {
      if (this.#timer === timer) this.#timer = undefined;
    };
    const timer = setTimeout(() => setImmediate(over), halfCloseMs).unref();
    this.#timer = timer;
  }

  /** Whether an end that comes now belongs to the request that came last. */
  get expected(): boolean {
    return this.#timer !== undefined;
  }

  /**
   * A client of HTTP/1.1 that is gone answers an octet with a reset, which a second write sees; one
   * that waits skips these heads.
   * @param sinceReadMs how long after its last octets the client closed its side
   */
  probe(sinceReadMs: number, isCommitted: () => boolean): void {
    const again = () => {
      if (!isCommitted()) this.#output.write(continueHead);
    };
    const first = () => {
      again();
      setTimeout(again, probeAgainMs).unref();
    };
    if (sinceReadMs > halfCloseMs) first();
    else setTimeout(first, probeLateMs).unref();
  }
}
