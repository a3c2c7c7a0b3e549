/** Of which request a copy was made. */
export interface CopyOrigin {
  readonly requestId: string;
  /** Whether to log its outcome. */
  readonly log: boolean;
}

interface OpenCopy {
  readonly origin: CopyOrigin;
  heardAtMs: number;
}

/**
 * The copies of one ingress that were published and of whose end nothing is known yet: what makes
 * the books balance when a sender dies with copies, or when none is running. Times are
 * in milliseconds of any monotonic clock.
 */
export class CopyLedger {
  readonly #maxOpen: number;
  readonly #lostAfterMs: number;
  readonly #open = new Map<number, OpenCopy>();

  constructor(options: { maxOpen: number; lostAfterMs: number }) {
    this.#maxOpen = options.maxOpen;
    this.#lostAfterMs = options.lostAfterMs;
  }

  get size(): number {
    return this.#open.size;
  }

  /** False when it holds as many as it may. */
  open(copy: number, origin: CopyOrigin, nowMs: number): boolean {
    if (this.#open.size >= this.#maxOpen) return false;
    this.#open.set(copy, { origin, heardAtMs: nowMs });
    return true;
  }

  /** A sender has them in its hands. */
  heard(copies: readonly number[], nowMs: number): void {
    for (const copy of copies) {
      const open = this.#open.get(copy);
      if (open !== undefined) open.heardAtMs = nowMs;
    }
  }

  /** Where it came from; undefined when its end was known already. */
  close(copy: number): CopyOrigin | undefined {
    const open = this.#open.get(copy);
    this.#open.delete(copy);
    return open?.origin;
  }

  /** Those that nobody has named for too long. */
  lost(nowMs: number): number[] {
    const lost: number[] = [];
    for (const [copy, { heardAtMs }] of this.#open) if (nowMs - heardAtMs >= this.#lostAfterMs) lost.push(copy);
    return lost;
  }

  /** Begins the wait for all anew: while nothing can be heard, silence means nothing. */
  forgiveSilence(nowMs: number): void {
    for (const open of this.#open.values()) open.heardAtMs = nowMs;
  }
}
