const slotMs = 5000;
/** A rate of the first moments would say little. */
const minMs = 1000;

/** How fast something went in the last five to ten seconds. Times are monotonic milliseconds. */
export class DrainRate {
  #slotAt: number;
  #current = 0;
  #previous = 0;
  /** How long the previous slot was looked at. */
  #previousMs = 0;

  constructor(now: number) {
    this.#slotAt = now;
  }

  count(now: number): void {
    this.#turn(now);
    this.#current++;
  }

  /** Per millisecond. */
  at(now: number): number {
    this.#turn(now);
    return (this.#current + this.#previous) / Math.max(minMs, this.#previousMs + now - this.#slotAt);
  }

  #turn(now: number): void {
    const passed = Math.floor((now - this.#slotAt) / slotMs);
    if (passed === 0) return;
    this.#previous = passed === 1 ? this.#current : 0;
    this.#previousMs = slotMs;
    this.#current = 0;
    this.#slotAt += passed * slotMs;
  }
}
