/**
 * The copies of one ingress that were published and of whose end nothing is known yet: what makes the books balance when a sender dies with copies
 * in its hands, or when nobody listens. Times are in milliseconds of any monotonic clock.
 */
export class CopyLedger {
  readonly #maxOpen: number;
  readonly #lostAfterMs: number;
  /** When a copy was last heard of. */
  readonly #heardAtMs = new Map<number, number>();

  constructor(options: { maxOpen: number; lostAfterMs: number }) {
    this.#maxOpen = options.maxOpen;
    this.#lostAfterMs = options.lostAfterMs;
  }

  get size(): number {
    return this.#heardAtMs.size;
  }

  /** False when it holds as many as it may. */
  open(copy: number, nowMs: number): boolean {
    if (this.#heardAtMs.size >= this.#maxOpen) return false;
    this.#heardAtMs.set(copy, nowMs);
    return true;
  }

  /** A sender has them in its hands. */
  heard(copies: readonly number[], nowMs: number): void {
    for (const copy of copies) if (this.#heardAtMs.has(copy)) this.#heardAtMs.set(copy, nowMs);
  }

  /** False when its end was known already. */
  close(copy: number): boolean {
    return this.#heardAtMs.delete(copy);
  }

  /** Those that nobody has named for too long. */
  lost(nowMs: number): number[] {
    const lost: number[] = [];
    for (const [copy, heardAtMs] of this.#heardAtMs) if (nowMs - heardAtMs >= this.#lostAfterMs) lost.push(copy);
    return lost;
  }

  /** Begins the wait for all anew: while nothing can be heard, silence means nothing. */
  forgiveSilence(nowMs: number): void {
    for (const copy of this.#heardAtMs.keys()) this.#heardAtMs.set(copy, nowMs);
  }
}
