import type { Exchange } from './exchange.ts';
import { pace } from './pace.ts';
import type { Prompt } from './prompt.ts';
import type { Computed } from './reply.ts';
import { Slots } from './slots.ts';

/** What has to be computed for one answer. */
export interface Work {
  readonly prompts: readonly Prompt[];
  /** Keeps prompts apart that must not share a cache. */
  readonly cacheSalt: string;
  /** Of the longest choice; 0: it gets a place, and nothing is ever computed. */
  readonly steps: number;
  /** Keeps its place after its last step until the client leaves. */
  readonly isHeld: boolean;
  /** The prompt was computed by another engine. */
  readonly isPrefilled: boolean;
  readonly firstMs: () => number;
  readonly nextMs: () => number;
  readonly computed: Computed;
}

export type Emit = (from: number, to: number) => void | Promise<void>;

/** Computes answers, in time and in its places. */
export interface Engine {
  readonly running: number;
  readonly waiting: number;
  /** Throws the `Refusal` that `compute` would throw now: for those who must know it before they begin their answer. */
  requireRoom(): void;
  /**
   * Calls `emit(from, to)` when steps `from` to `to - 1` are computed, and resolves after the last. Throws a `Refusal` when
   * it is full, the signal's reason when the client leaves; either way its place is free again at once.
   */
  compute(work: Work, exchange: Pick<Exchange, 'signal' | 'pause'>, emit: Emit): Promise<void>;
}

/** Computes so many requests at once, each by its own timetable whatever the others do. */
export class SlotEngine implements Engine {
  readonly #slots: Slots;

  constructor(capacity: number, queueLimit: number) {
    this.#slots = new Slots(capacity, queueLimit);
  }

  get running(): number {
    return this.#slots.running;
  }

  get waiting(): number {
    return this.#slots.waiting;
  }

  requireRoom(): void {
    this.#slots.requireRoom();
  }

  async compute(work: Work, { signal, pause }: Pick<Exchange, 'signal' | 'pause'>, emit: Emit): Promise<void> {
    using _slot = await this.#slots.acquire(signal);
    const { steps: count, firstMs, nextMs } = work;
    await pace({ count, firstMs, nextMs }, pause, emit);
    if (work.isHeld) await pause.forEver();
  }
}
