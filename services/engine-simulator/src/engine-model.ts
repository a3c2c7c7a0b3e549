import { blockTokens } from './block-keys.ts';
import { BlockPool, type Holding } from './block-pool.ts';

export interface ModelSettings {
  readonly prefillTokensPerS: number;
  /** 0: memory is endless, and nothing is cached. */
  readonly kvBlocks: number;
  readonly maxRunning: number;
  readonly maxWaiting: number;
  readonly interTokenMs: number;
  /**
   * What each further request in the batch adds to the time of a step, as a share of
   * `interTokenMs`.
   */
  readonly batchSlowdown: number;
  /** Makes of a time one around it. */
  readonly vary: (ms: number) => number;
}

/** What a request needs. */
export interface Job {
  readonly promptTokens: number;
  /** Of the prompt's full blocks. */
  readonly blockKeys: readonly number[];
  /** Tokens of the answer; 0: it gets a place, and nothing is computed. */
  readonly steps: number;
  /** Keeps its place and its memory after its last step until it leaves. */
  readonly isHeld: boolean;
  /** Its prompt was computed elsewhere. */
  readonly isPrefilled: boolean;
}

/** A request in the engine. */
export interface Sequence {
  readonly job: Job;
  /** Tokens of the answer computed so far. */
  readonly steps: number;
  /** Tokens of the prompt that were in the cache when it was first admitted; undefined before. */
  readonly cachedTokens: number | undefined;
  /** All its steps are computed and its place is free. */
  readonly isEnded: boolean;
}

interface State extends Sequence {
  steps: number;
  cachedTokens: number | undefined;
  isEnded: boolean;
  /** By it the one admitted last is found. */
  admission: number;
  holding: Holding | undefined;
  preemptions: number;
}

/**
 * An engine as a scheduler sees it, after vLLM's: prompts are computed one after the other, in the
 * order they came, except for the blocks that are in the KV cache; answers are computed together, one
 * token each in every step, and a step takes longer the more requests are in it. A request that
 * needs a block when none is left preempts the request admitted last: that one returns to the front
 * of the queue, and its tokens are computed again.
 *
 * Pure: time is an argument, in milliseconds, and never goes back. What is due happens at its own
 * time however late `advance` is called, so the result does not depend on how often it is.
 */
export class EngineModel {
  /**
   * Tokens of prompts looked up in the cache, tokens found there, and preemptions.
   */
  readonly counts = { queriedTokens: 0, hitTokens: 0, preemptions: 0 };
  readonly #settings: ModelSettings;
  readonly #pool: BlockPool | undefined;
  #waiting: State[] = [];
  #prefill: { readonly sequence: State; readonly endsAt: number } | undefined;
  readonly #decoding = new Set<State>();
  /** Its members with the admission by which they take part. */
  #step: { readonly members: ReadonlyMap<State, number>; readonly endsAt: number } | undefined;
  readonly #held = new Set<State>();
  #progressed = new Set<Sequence>();
  #admissions = 0;
  #nowMs = 0;

  constructor(settings: ModelSettings) {
    this.#settings = settings;
    this.#pool = settings.kvBlocks > 0 ? new BlockPool(settings.kvBlocks) : undefined;
  }

  get running(): number {
    return this.#decoding.size + this.#held.size + (this.#prefill ? 1 : 0);
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** From 0 to 1. */
  get kvUsage(): number {
    return this.#pool ? this.#pool.held / this.#pool.capacity : 0;
  }

  /** Whether one more would neither run at once nor have a place to wait. */
  get isFull(): boolean {
    const runsAtOnce = !this.#prefill && this.#waiting.length === 0 && this.running < this.#settings.maxRunning;
    return !runsAtOnce && this.#waiting.length >= this.#settings.maxWaiting;
  }

  /** Whether the job's prompt and answer fit into the memory at all. */
  fits({ promptTokens, steps }: Pick<Job, 'promptTokens' | 'steps'>): boolean {
    return !this.#pool || blocksOf(promptTokens + steps) <= this.#pool.capacity;
  }

  /** Takes a job that fits while it is not full. */
  submit(job: Job, nowMs: number): Sequence {
    this.#runUntil(nowMs);
    const cachedTokens = undefined;
    const sequence: State = {
      ...{ job, steps: 0, cachedTokens, isEnded: false },
      ...{ admission: 0, holding: undefined, preemptions: 0 },
    };
    this.#waiting.push(sequence);
    this.#schedule();
    return sequence;
  }

  /** Ends a sequence wherever it is. One that has ended may leave again. */
  leave(sequence: Sequence, nowMs: number): void {
    this.#runUntil(nowMs);
    const state = sequence as State;
    if (state.isEnded) return;
    this.#waiting = this.#waiting.filter((other) => other !== state);
    this.#end(state);
    this.#schedule();
  }

  /** Computes what is due. Returns whose `steps` or `isEnded` changed since the last call. */
  advance(nowMs: number): ReadonlySet<Sequence> {
    this.#runUntil(nowMs);
    const progressed = this.#progressed;
    this.#progressed = new Set();
    return progressed;
  }

  /** When something is due next; `Infinity` when nothing is. */
  nextAtMs(): number {
    return Math.min(this.#prefill?.endsAt ?? Number.POSITIVE_INFINITY, this.#step?.endsAt ?? Number.POSITIVE_INFINITY);
  }

  #runUntil(nowMs: number): void {
    for (let dueMs = this.nextAtMs(); dueMs <= nowMs; dueMs = this.nextAtMs()) {
      this.#nowMs = dueMs;
      if (this.#prefill?.endsAt === dueMs) this.#endPrefill(this.#prefill.sequence);
      else this.#endStep();
      this.#schedule();
    }
    this.#nowMs = Math.max(this.#nowMs, nowMs);
  }

  /** Begins what can begin now. */
  #schedule(): void {
    while (!this.#prefill && this.running < this.#settings.maxRunning) {
      const [next] = this.#waiting;
      if (!next || !this.#admit(next)) break;
      this.#waiting.shift();
    }
    if (!this.#step) this.#beginStep();
  }

  /** Gives it its memory and begins its prompt; false when there is no room yet. */
  #admit(sequence: State): boolean {
    const { job } = sequence;
    // After a preemption the tokens of the answer are computed again, with the prompt.
    const tokens = job.promptTokens + sequence.steps;
    let hitTokens = 0;
    if (this.#pool) {
      // The last token is computed in any case: the first of the answer follows from it.
      const usable = job.blockKeys.slice(0, Math.floor((tokens - 1) / blockTokens));
      const hits = usable.slice(0, this.#pool.hits(usable));
      sequence.holding = this.#pool.take(hits, blocksOf(tokens) - hits.length);
      if (!sequence.holding) return false;
      hitTokens = hits.length * blockTokens;
    }
    if (sequence.cachedTokens === undefined) {
      sequence.cachedTokens = hitTokens;
      this.counts.queriedTokens += this.#pool ? job.promptTokens : 0;
      this.counts.hitTokens += hitTokens;
    }
    this.#admissions += 1;
    sequence.admission = this.#admissions;
    if (job.steps === 0) this.#finish(sequence);
    else {
      const isFree = job.isPrefilled && sequence.preemptions === 0;
      const ms = isFree ? 0 : this.#settings.vary(((tokens - hitTokens) / this.#settings.prefillTokensPerS) * 1000);
      this.#prefill = { sequence, endsAt: this.#nowMs + ms };
    }
    return true;
  }

  #endPrefill(sequence: State): void {
    this.#prefill = undefined;
    const { holding, job } = sequence;
    if (holding) this.#pool?.share(holding, job.blockKeys);
    this.#compute(sequence);
    if (sequence.steps < job.steps) this.#decoding.add(sequence);
  }

  #beginStep(): void {
    for (const sequence of this.#decoding) this.#makeRoom(sequence);
    if (this.#decoding.size === 0) return;
    const members = new Map([...this.#decoding].map((sequence) => [sequence, sequence.admission]));
    const { interTokenMs, batchSlowdown, vary } = this.#settings;
    const ms = vary(interTokenMs * (1 + batchSlowdown * (members.size - 1)));
    this.#step = { members, endsAt: this.#nowMs + ms };
  }

  #endStep(): void {
    const members = this.#step?.members ?? new Map<State, number>();
    this.#step = undefined;
    for (const [sequence, admission] of members) {
      // Not a sequence that left or was preempted meanwhile, even if it was admitted again.
      if (this.#decoding.has(sequence) && sequence.admission === admission) this.#compute(sequence);
    }
  }

  /**
   * Gets a block for the next token when the last one is full, by preemption when none is left.
   */
  #makeRoom(sequence: State): void {
    const { holding, job } = sequence;
    if (!this.#pool || !holding) return;
    const needed = blocksOf(job.promptTokens + sequence.steps);
    while (this.#decoding.has(sequence) && holding.shared.length + holding.own < needed) {
      if (!this.#pool.grow(holding)) this.#preempt(this.#lastAdmitted(sequence));
    }
  }

  #lastAdmitted(first: State): State {
    const others = this.#prefill ? [...this.#decoding, this.#prefill.sequence] : [...this.#decoding];
    return others.reduce((last, one) => (one.admission > last.admission ? one : last), first);
  }

  #preempt(sequence: State): void {
    this.counts.preemptions += 1;
    sequence.preemptions += 1;
    this.#free(sequence);
    this.#waiting.unshift(sequence);
  }

  #compute(sequence: State): void {
    sequence.steps += 1;
    this.#progressed.add(sequence);
    if (sequence.steps >= sequence.job.steps) this.#finish(sequence);
  }

  #finish(sequence: State): void {
    if (!sequence.job.isHeld) this.#end(sequence);
    else {
      this.#decoding.delete(sequence);
      this.#held.add(sequence);
    }
  }

  #end(sequence: State): void {
    sequence.isEnded = true;
    this.#progressed.add(sequence);
    this.#free(sequence);
  }

  #free(sequence: State): void {
    this.#decoding.delete(sequence);
    this.#held.delete(sequence);
    if (this.#prefill?.sequence === sequence) this.#prefill = undefined;
    if (sequence.holding) this.#pool?.release(sequence.holding);
    sequence.holding = undefined;
  }
}

function blocksOf(tokens: number): number {
  return Math.ceil(tokens / blockTokens);
}
