/** Limits hold for what is spent within so long, wherever that begins. */
export const windowMs = 60_000;
/**
 * What is spent within so long is one entry, which leaves the window when its end does: never too
 * early.
 */
const grainMs = 250;
/** The grain of a history that goes into a message. */
const historyGrainMs = 1000;

interface Entry {
  /** Monotonic milliseconds: the end of its grain. */
  readonly until: number;
  amount: number;
}

/** What was spent in the last 60 seconds. Times are monotonic milliseconds, and never go back. */
export class SpendWindow {
  #entries: Entry[] = [];
  #sum = 0;

  add(amount: number, now: number): void {
    if (amount <= 0) return;
    this.#sum += amount;
    const until = Math.ceil((now + 1) / grainMs) * grainMs;
    const last = this.#entries.at(-1);
    if (last !== undefined && last.until >= until) last.amount += amount;
    else this.#entries.push({ until, amount });
  }

  sum(now: number): number {
    while (this.#entries[0] !== undefined && this.#entries[0].until + windowMs <= now) {
      this.#sum -= this.#entries.shift()?.amount ?? 0;
    }
    return this.#sum;
  }

  /**
   * How long until at least `amount` of it is out of the window; infinite when there is not so much
   * in it.
   */
  waitFor(amount: number, now: number): number {
    if (amount <= 0) return 0;
    let left = amount;
    for (const entry of this.#entries) {
      left -= entry.amount;
      if (left <= 0) return Math.max(0, entry.until + windowMs - now);
    }
    return Number.POSITIVE_INFINITY;
  }

  /**
   * For another process: how long ago each amount was spent, the oldest first, at most 61 of them.
   */
  history(now: number): [ageMs: number, amount: number][] {
    this.sum(now);
    const seconds = new Map<number, number>();
    for (const { until, amount } of this.#entries) {
      const age = Math.floor(Math.max(0, now - until) / historyGrainMs) * historyGrainMs;
      seconds.set(age, (seconds.get(age) ?? 0) + amount);
    }
    return [...seconds];
  }

  /** Takes the history of another process in place of what is here. */
  replace(history: readonly (readonly [ageMs: number, amount: number])[], now: number): void {
    this.#entries = [];
    this.#sum = 0;
    for (const [age, amount] of history.toSorted(([a], [b]) => b - a)) {
      if (age < windowMs) this.add(amount, now - age);
    }
  }
}
