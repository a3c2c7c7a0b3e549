/** A wait that a client's departure ends: no timer is left behind. One per request. */
export class Pause {
  readonly #signal: AbortSignal;
  #wake: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
  }

  /** Throws the signal's reason when it aborts. */
  async for(ms: number): Promise<void> {
    this.#signal.throwIfAborted();
    if (ms <= 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
    this.#signal.throwIfAborted();
  }

  /** Never resolves; throws when the signal aborts. */
  async forEver(): Promise<never> {
    this.#signal.throwIfAborted();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    throw this.#signal.reason;
  }
}

export interface Pace {
  readonly count: number;
  readonly firstMs: () => number;
  readonly nextMs: () => number;
}

/**
 * Calls `emit(from, to)` when tokens `from` to `to - 1` are due. They are due by an absolute
 * timetable, so a late timer delays one token and not all that follow, and times below a timer's
 * resolution come out right on average.
 */
export async function pace(
  { count, firstMs, nextMs }: Pace,
  pause: Pause,
  emit: (from: number, to: number) => void | Promise<void>,
): Promise<void> {
  let due = performance.now() + firstMs();
  for (let next = 0; next < count; ) {
    const now = performance.now();
    if (due > now) {
      await pause.for(due - now);
      continue;
    }
    const from = next;
    while (next < count && due <= now) {
      next += 1;
      due += nextMs();
    }
    await emit(from, next);
  }
}

/** A time around `ms`: `jitter` 0.2 makes it between 0.8 and 1.2 of it. */
export function varied(ms: number, jitter: number, random: () => number): number {
  return jitter === 0 || ms === 0 ? ms : ms * (1 + jitter * (2 * random() - 1));
}

/** Mulberry32: a seeded source of numbers in [0, 1). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
