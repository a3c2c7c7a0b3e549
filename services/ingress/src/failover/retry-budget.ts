const slotMs = 1000;
const slotCount = 10;
/** Retries that are always allowed in one window: a quiet ingress must be able to retry at all. */
const floor = 10;

/**
 * Keeps internal retries and calls of the retry queue within a share of the requests of the last
 * ten seconds, so that a failing pool is not stormed by the retries for its own failures. Fallbacks
 * are not its business.
 *
 * What is taken counts until it is made or given back, however long that takes, and then for ten
 * seconds from when it was made: jobs that wait for the same moment would otherwise be forgotten
 * one by one, and be called all at once.
 */
export class RetryBudget {
  readonly #share: number;
  readonly #now: () => number;
  readonly #onExhausted: () => void;
  readonly #requests = new Float64Array(slotCount);
  readonly #retries = new Float64Array(slotCount);
  #slot = 0;
  /** Taken, and neither made nor given back yet. */
  #held = 0;

  /** @param options.now monotonic milliseconds */
  constructor(options: { percent: number; now: () => number; onExhausted: () => void }) {
    this.#share = options.percent / 100;
    this.#now = options.now;
    this.#onExhausted = options.onExhausted;
    this.#slot = this.#slotNow();
  }

  /** A request came. */
  arrived(): void {
    this.#add(this.#requests, 1);
  }

  /**
   * Takes one retry out of the budget; false when there is none left. Exactly one of `made` and
   * `give` follows.
   */
  readonly take = (): boolean => {
    this.#forget();
    if (this.#held + sum(this.#retries) + 1 > floor + this.#share * sum(this.#requests)) {
      this.#onExhausted();
      return false;
    }
    this.#held++;
    return true;
  };

  /** One that was taken is being made. */
  made(): void {
    this.#held--;
    this.#add(this.#retries, 1);
  }

  /** Gives back one that was taken and came to nothing. */
  give(): void {
    this.#held--;
  }

  #add(counts: Float64Array, by: number): void {
    this.#forget();
    const at = this.#slot % slotCount;
    counts[at] = (counts[at] ?? 0) + by;
  }

  /** Empties the slots that time has passed over. */
  #forget(): void {
    const slot = this.#slotNow();
    const passed = Math.min(slot - this.#slot, slotCount);
    for (let n = 1; n <= passed; n++) {
      this.#requests[(this.#slot + n) % slotCount] = 0;
      this.#retries[(this.#slot + n) % slotCount] = 0;
    }
    this.#slot = slot;
  }

  #slotNow(): number {
    return Math.floor(this.#now() / slotMs);
  }
}

function sum(counts: Float64Array): number {
  let total = 0;
  for (const count of counts) total += count;
  return total;
}
