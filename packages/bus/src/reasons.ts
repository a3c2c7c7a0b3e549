const repeatMs = 60_000;
/** Reasons told apart at a time; the text of an error may hold anything. */
const maxReasons = 20;
const otherReasons = 'other reasons';
const maxReasonLength = 300;

interface Told {
  atMs: number;
  /** How often it came since it was last logged. */
  count: number;
}

export interface Reason {
  readonly reason: string;
  /** How often it came since its last line, this time included. */
  readonly count: number;
}

/**
 * Lets each reason of a thing that fails again and again be logged at once and then once a minute
 * at most, with its count. Beyond 20 reasons within a minute all further ones count as one.
 */
export class Reasons {
  readonly #now: () => number;
  readonly #told = new Map<string, Told>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** What to log; null when its line is too recent. */
  take(text: string): Reason | null {
    const nowMs = this.#now();
    const short = text.length > maxReasonLength ? `${text.slice(0, maxReasonLength)}…` : text;
    const reason = this.#room(short, nowMs) ? short : otherReasons;
    const told = this.#told.get(reason) ?? { atMs: Number.NEGATIVE_INFINITY, count: 0 };
    this.#told.set(reason, told);
    told.count += 1;
    if (nowMs - told.atMs < repeatMs) return null;
    const { count } = told;
    told.atMs = nowMs;
    told.count = 0;
    return { reason, count };
  }

  #room(reason: string, nowMs: number): boolean {
    if (this.#told.has(reason) || this.#told.size < maxReasons) return true;
    for (const [old, { atMs }] of this.#told) if (nowMs - atMs >= repeatMs) this.#told.delete(old);
    return this.#told.size < maxReasons;
  }
}
