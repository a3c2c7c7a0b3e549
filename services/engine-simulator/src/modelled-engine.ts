import type { Client, Emit, Engine, EngineReport, Work } from './engine.ts';
import { EngineModel, type Job, type Sequence } from './engine-model.ts';
import type { SimulatorValues } from './options.ts';
import { varied } from './pace.ts';
import { Refusal } from './refusal.ts';

/** An `EngineModel` that runs in real time. */
export class ModelledEngine implements Engine {
  readonly #values: SimulatorValues;
  readonly #model: EngineModel;
  /** Who waits for the next step of a sequence. */
  readonly #sleepers = new Map<Sequence, () => void>();
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(values: SimulatorValues, random: () => number) {
    this.#values = values;
    this.#model = new EngineModel({
      prefillTokensPerS: values.prefillTokensPerS,
      kvBlocks: values.kvBlocks,
      maxRunning: values.maxConcurrency,
      maxWaiting: values.queueLimit,
      interTokenMs: values.interTokenMs,
      batchSlowdown: values.batchSlowdown,
      vary: (ms) => varied(ms, values.jitter, random),
    });
  }

  get report(): EngineReport {
    const { running, waiting, kvUsage, counts } = this.#model;
    return { running, waiting, kvBlocks: this.#values.kvBlocks, kvUsage, ...counts };
  }

  requireRoom(): void {
    if (this.#model.isFull) throw new Refusal(503, 'The request queue is full.');
  }

  async compute(work: Work, { signal, pause }: Client, emit: Emit): Promise<void> {
    const { kvBlocks, kvTransferMs } = this.#values;
    const { promptTokens, steps, isHeld, isPrefilled, computed } = work;
    const job: Job = { promptTokens, steps, isHeld, isPrefilled, blockKeys: kvBlocks > 0 ? work.blockKeys() : [] };
    if (!this.#model.fits(job)) throw new Refusal(400, 'The prompts and answers need more than the whole KV cache.');
    if (isPrefilled) await pause.for(kvTransferMs);
    signal.throwIfAborted();
    this.requireRoom();
    const sequence = this.#model.submit(job, performance.now());
    const wake = () => this.#sleepers.get(sequence)?.();
    signal.addEventListener('abort', wake);
    try {
      this.#run();
      for (let emitted = 0; ; ) {
        signal.throwIfAborted();
        const { steps: to, cachedTokens, isEnded } = sequence;
        if (to > emitted) {
          computed.cachedTokens = kvBlocks > 0 ? cachedTokens : undefined;
          await emit(emitted, to);
          emitted = to;
        } else if (isEnded) return;
        else await new Promise<void>((resolve) => this.#sleepers.set(sequence, resolve));
      }
    } finally {
      signal.removeEventListener('abort', wake);
      this.#sleepers.delete(sequence);
      this.#model.leave(sequence, performance.now());
      this.#run();
    }
  }

  /**
   * Lets the model compute what is due, wakes whom it concerns, and comes back when something is
   * due again.
   */
  #run(): void {
    for (const sequence of this.#model.advance(performance.now())) this.#sleepers.get(sequence)?.();
    const dueAtMs = this.#model.nextAtMs();
    if (dueAtMs === this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = dueAtMs;
    if (dueAtMs === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(
      () => {
        this.#timerAtMs = Number.POSITIVE_INFINITY;
        this.#run();
      },
      Math.max(0, dueAtMs - performance.now()),
    );
  }
}
