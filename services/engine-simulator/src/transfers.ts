/** vLLM frees the blocks of an unfetched prefill after this time. */
const lifetimeMs = 480_000;
const maxTransfers = 100_000;

interface Transfer {
  readonly promptHash: number;
  readonly offeredAt: number;
}

/** The prefills of one process that wait for their decode engine, each to be fetched once. */
export class Transfers {
  /** In the order of their offers, so the oldest is first. */
  readonly #waiting = new Map<string, Transfer>();

  get size(): number {
    return this.#waiting.size;
  }

  /**
   * A new offer under the same key replaces the old: its request was tried again. `nowMs` on any
   * steady clock.
   */
  offer(key: string, promptHash: number, nowMs: number): void {
    this.#waiting.delete(key);
    this.#waiting.set(key, { promptHash, offeredAt: nowMs });
    for (const [oldest, { offeredAt }] of this.#waiting) {
      if (nowMs - offeredAt < lifetimeMs && this.#waiting.size <= maxTransfers) break;
      this.#waiting.delete(oldest);
    }
  }

  /** Takes a prefill. Undefined when it was; else what is wrong with the claim. */
  claim(key: string, promptHash: number): string | undefined {
    const transfer = this.#waiting.get(key);
    if (!transfer) return `no prefill waits for ${key}`;
    if (transfer.promptHash !== promptHash) return `the prefill of ${key} was of another prompt`;
    this.#waiting.delete(key);
    return undefined;
  }
}
