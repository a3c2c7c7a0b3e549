import { pace } from './pace.ts';
import type { Computed } from './reply.ts';
import type { EngineCall } from './route-server.ts';
import { Slots } from './slots.ts';

/** What has to be computed for one answer. */
export interface Work {
  readonly promptTokens: number;
  /** Of the full blocks of the prompt, for engines with a KV cache. */
  readonly blockKeys: () => readonly number[];
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

/** Who waits for an answer. */
export type Client = Pick<EngineCall, 'signal' | 'pause'>;

export type Emit = (from: number, to: number) => void | Promise<void>;

/** What an engine's metrics say of it. */
export interface EngineReport {
  readonly running: number;
  readonly waiting: number;
  /** Blocks of its KV cache, 0 when none is modelled, and the share of them in use. */
  readonly kvBlocks: number;
  readonly kvUsage: number;
  /**
   * Tokens of prompts looked up in the cache, tokens found there, and preemptions for want of memory.
   */
  readonly queriedTokens: number;
  readonly hitTokens: number;
  readonly preemptions: number;
}

/** Computes answers, in time and in its places. */
export interface Engine {
  readonly report: EngineReport;
  /**
   * Throws the `Refusal` that `compute` would throw now: for those who must know it before they
   * begin their answer.
   */
  requireRoom(): void;
  /**
   * Calls `emit(from, to)` when steps `from` to `to - 1` are computed, and resolves after the last.
   * Throws a `Refusal` when it is full, the signal's reason when the client leaves; either way its
   * place is free again at once.
   */
  compute(work: Work, client: Client, emit: Emit): Promise<void>;
}

/** Computes so many requests at once, each by its own timetable whatever the others do. */
export class SlotEngine implements Engine {
  readonly #slots: Slots;

  constructor(capacity: number, queueLimit: number) {
    this.#slots = new Slots(capacity, queueLimit);
  }

  get report(): EngineReport {
    const { running, waiting } = this.#slots;
    return { running, waiting, kvBlocks: 0, kvUsage: 0, queriedTokens: 0, hitTokens: 0, preemptions: 0 };
  }

  requireRoom(): void {
    this.#slots.requireRoom();
  }

  async compute(work: Work, { signal, pause }: Client, emit: Emit): Promise<void> {
    using _slot = await this.#slots.acquire(signal);
    const { steps: count, firstMs, nextMs } = work;
    await pace({ count, firstMs, nextMs }, pause, emit);
    if (work.isHeld) await pause.forEver();
  }
}
