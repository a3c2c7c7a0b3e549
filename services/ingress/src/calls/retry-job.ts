import { type HeaderLines, retryAfterMs } from '@llm-gateway/http1';
import { decodeJobProgress, decodeJobResult, withoutJobHeaders } from '@llm-gateway/protocol';
import { type CancelSignal, failureOf, isFailureCause, type ResponseHead } from '@llm-gateway/upstream';
import type { Exchange } from '../exchange/exchange.ts';
import type { QueueProgress, StepResult, StoredAnswer } from '../failover/failover.ts';
import type { RetryBudget } from '../failover/retry-budget.ts';
import type { AttemptResult, JobWatch } from './attempt.ts';

/** A worker that is alive ends a job in time; this much later it is taken for lost. */
export const graceMs = 5000;
/** How often all jobs are looked at. */
export const watchMs = 1000;
/** Missed repeats of its report after which a worker is considered lost. */
const missedRepeats = 3;
/** A worker reports something as soon as it has the request, which may be large. */
const firstWordMs = 10_000;

/** One job at one worker: the worker's reports and their meaning. */
export class RetryJob implements JobWatch {
  readonly #exchange: Exchange;
  readonly #lost = new AbortController();
  readonly #lostAtMs: number;
  readonly signal: CancelSignal;
  #progress: QueueProgress;
  #toldAtMs = performance.now();
  /** The longest silence that the worker allows itself; null: it says nothing twice. */
  #silenceMs: number | null = firstWordMs;
  /**
   * Looks in a row that found nothing new. Not time: after a standstill of this process, what came
   * meanwhile is yet to be read.
   */
  #silentLooks = 0;
  #answering = false;
  readonly #budget: RetryBudget | null;
  called = false;

  constructor(
    known: QueueProgress,
    exchange: Exchange,
    { deadlineMs, budget }: { deadlineMs: number; budget: RetryBudget | null },
  ) {
    this.#budget = budget;
    this.#progress = known;
    this.#exchange = exchange;
    this.#lostAtMs = performance.now() + deadlineMs + graceMs;
    this.signal = AbortSignal.any([exchange.signal.abortSignal, this.#lost.signal]);
  }

  /**
   * Gives the worker up when it is silent, or past the deadline. Once its answer is there it is a
   * call as any other.
   */
  look(): void {
    if (this.#answering) return;
    this.#silentLooks++;
    const silent = this.#silenceMs !== null && this.#silentLooks * watchMs > this.#silenceMs;
    if (silent || performance.now() > this.#lostAtMs) this.#lost.abort();
  }

  onInformation(headers: HeaderLines): void {
    const told = decodeJobProgress(headers.list);
    if (told === null) return;
    this.#exchange.attempted(told.calls - this.#progress.calls);
    this.#progress = { calls: told.calls, retryAfterMs: told.retryAfterMs };
    this.#toldAtMs = performance.now();
    this.#silentLooks = 0;
    this.#silenceMs = told.repeatMs === undefined ? null : missedRepeats * told.repeatMs;
    if (this.called || told.phase !== 'calling') return;
    this.called = true;
    this.#budget?.made();
  }

  isForClient({ headers }: ResponseHead): boolean {
    this.#answering = true;
    return decodeJobResult(headers.list)?.kind === 'answered';
  }

  outcome(end: AttemptResult): StepResult | null {
    switch (end.kind) {
      case 'answered':
      case 'broken':
        return null;
      case 'cancelled':
        // Or the worker was given up.
        return this.#exchange.signal.aborted ? null : { kind: 'queue-lost', progress: this.#left() };
      case 'failed':
        return { kind: 'queue-lost', progress: this.#left() };
      case 'rejected':
        return this.#notAnswered({ ...end.answer, headers: end.answer.headers.list });
    }
  }

  #notAnswered(given: StoredAnswer): StepResult {
    const result = decodeJobResult(given.headers);
    const answer = { ...given, headers: withoutJobHeaders(given.headers) };
    switch (result?.kind) {
      case 'limited': {
        const asked = retryAfterMs(answer.headers, Date.now());
        return { kind: 'queue-limited', answer, progress: { calls: result.calls, retryAfterMs: asked } };
      }
      case 'exhausted':
      case 'failed': {
        if (result.cause === null) return { kind: 'rejected', answer, instances: [] };
        if (!isFailureCause(result.cause)) return { kind: 'queue-refused' };
        const { cause, error } = failureOf(result.cause);
        return { kind: 'failed', code: error.code, cause, instances: [] };
      }
      default:
        // Handed back, or not a worker's answer at all.
        return { kind: 'queue-lost', progress: this.#left() };
    }
  }

  /** What another worker has to know. */
  #left(): QueueProgress {
    const { calls, retryAfterMs } = this.#progress;
    const sinceMs = performance.now() - this.#toldAtMs;
    return { calls, retryAfterMs: retryAfterMs === null ? null : Math.max(0, retryAfterMs - sinceMs) };
  }
}
