/** Stands for the values that have no place of their own. */
export const overflow = '_overflow';
const maxLabelLength = 200;

/**
 * Bounds a label that comes from outside: the first `max` values (of a sane length) are themselves,
 * all others `_overflow`. Share one between the metrics that have the label.
 */
export function boundedLabel(max = 1000): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= max || value.length > maxLabelLength) return overflow;
    seen.add(value);
    return value;
  };
}

/**
 * Values from outside whose users change: so many at once, and how long one is unused before
 * another may have its place.
 */
const maxRecent = 1000;
const recentMs = 600_000;

/**
 * Bounds a label as `boundedLabel` does, but not for ever by the first: a new value takes the place
 * of one that was not used for ten minutes, whose series `forget` drops. So values that somebody
 * invents are gone once they stop.
 */
export class RecentLabel {
  readonly #forget: (value: string) => void;
  readonly #now: () => number;
  readonly #max: number;
  /** When each was used last, the one that waits longest first. */
  readonly #usedAtMs = new Map<string, number>();

  /** @param options.now monotonic milliseconds */
  constructor(forget: (value: string) => void, options: { now?: () => number; max?: number } = {}) {
    this.#forget = forget;
    this.#now = options.now ?? (() => performance.now());
    this.#max = options.max ?? maxRecent;
  }

  /** Whether it has its own place now. */
  has(value: string): boolean {
    return this.#usedAtMs.has(value);
  }

  /** The value itself, or `_overflow`. */
  of(value: string): string {
    const now = this.#now();
    const usedAtMs = this.#usedAtMs.get(value);
    if (usedAtMs === undefined && !this.#makeRoom(value, now)) return overflow;
    // Moved to the end seldom: that costs more than all the rest.
    if (usedAtMs === undefined || now - usedAtMs > recentMs / 10) {
      this.#usedAtMs.delete(value);
      this.#usedAtMs.set(value, now);
    }
    return value;
  }

  #makeRoom(value: string, now: number): boolean {
    if (value.length > maxLabelLength) return false;
    if (this.#usedAtMs.size < this.#max) return true;
    const [oldest] = this.#usedAtMs;
    if (oldest === undefined || now - oldest[1] <= recentMs) return false;
    this.#usedAtMs.delete(oldest[0]);
    this.#forget(oldest[0]);
    return true;
  }
}
