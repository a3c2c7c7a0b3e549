import type { Bus } from '@llm-gateway/bus';
import { HeaderLines, retryAfterMs, splitUrl } from '@llm-gateway/http1';
import {
  decodeJobProgress,
  decodeJobResult,
  encodeJobRequest,
  GatewayError,
  retryOffer,
  withoutJobHeaders,
} from '@llm-gateway/protocol';
import { failureOf, isFailureCause, type ResponseHead, type Upstream } from '@llm-gateway/upstream';
import { type AttemptEnd, attempt, type JobWatch } from './attempt.ts';
import type { Exchange } from './exchange.ts';
import type { Outcome, QueueProgress, Step, StoredAnswer } from './failover.ts';
import type { KnownWorkers } from './known-workers.ts';
import type { Observer, OfferResult, QueueJobResult } from './observer.ts';
import type { RetryBudget } from './retry-budget.ts';

type QueueStep = Extract<Step, { do: 'queue' }>;

export interface RetryQueueParts {
  readonly bus: Bus;
  readonly workers: KnownWorkers;
  readonly generation: string;
  readonly upstream: Upstream;
  readonly observer: Observer;
  readonly exposeRouteHeaders: boolean;
  /** Null: no budget. */
  readonly budget: RetryBudget | null;
  /** A job ends when its request is that old, unless its answer has begun by then. */
  readonly requestDeadlineMs: number;
}

/** A worker leaves the group before it refuses, so that so many offers reach as many workers; see `retryOffer`. */
const maxOffers = 16;
const offerTimeoutMs = 1000;
/** A worker that is alive ends a job in time; this much later it is taken for lost. */
const graceMs = 5000;
/** How often all jobs are looked at. */
const watchMs = 1000;
/** A worker is taken for lost when it did not tell so often what it was to tell again. */
const missedRepeats = 3;
/** A worker tells something as soon as it has the request, which may be large. */
const firstWordMs = 10_000;

/** The place that a worker holds for a job. */
interface Place {
  readonly url: string;
  readonly token: string;
}

/**
 * The ingress's side of the 429 retry queue: offers a job over the bus, streams the request to the worker that takes it, and relays its answer.
 * Where there is a retry budget it has paid for one call, and the worker gets no more than that at a time.
 */
export class RetryQueue implements Disposable {
  readonly #parts: RetryQueueParts;
  /** In the hands of workers. */
  readonly #jobs = new Set<Job>();
  /** Runs while workers have jobs. */
  #watch: NodeJS.Timeout | undefined;

  constructor(parts: RetryQueueParts) {
    this.#parts = parts;
  }

  /** Workers are not watched any more. */
  [Symbol.dispose](): void {
    clearInterval(this.#watch);
  }

  #lookAtAll(): void {
    for (const job of this.#jobs) job.look();
    if (this.#jobs.size > 0) return;
    clearInterval(this.#watch);
    this.#watch = undefined;
  }

  /** One step of the failover machine. Null when nothing is left to do. Throws `client_closed` when the client leaves while the job is offered. */
  async call(step: QueueStep, exchange: Exchange): Promise<Outcome | null> {
    exchange.phase = 'queued';
    const known = step.progress ?? {
      calls: 0,
      retryAfterMs: retryAfterMs(step.answer.headers, Date.now()),
    };
    const job = new Job(known, exchange, { deadlineMs: this.#deadlineMs(exchange), budget: this.#parts.budget });
    try {
      const place = await this.#offer(step.endpoint, known, exchange);
      if (place === null) {
        this.#parts.observer.job('refused');
        return { kind: 'queue-refused' };
      }
      this.#jobs.add(job);
      this.#watch ??= setInterval(() => this.#lookAtAll(), watchMs).unref();
      const end = await this.#handOver(place, job, exchange);
      const outcome = job.outcome(end);
      this.#parts.observer.job(jobResult(end, outcome));
      return outcome;
    } finally {
      this.#jobs.delete(job);
      if (!job.called) this.#parts.budget?.give();
    }
  }

  /** Offers until a worker accepts; null when none does. */
  async #offer(endpoint: number, known: QueueProgress, exchange: Exchange): Promise<Place | null> {
    const { bus, workers, generation, observer, budget } = this.#parts;
    const offeredAtMs = performance.now();
    /** Offers that cost a wait. */
    let timeouts = 0;
    for (let offers = 0; offers < maxOffers && timeouts < 2; offers++) {
      const now = performance.now();
      const deadlineMs = this.#deadlineMs(exchange);
      if (deadlineMs <= 0) return null;
      const query = {
        requestId: exchange.id,
        generation,
        endpoint,
        retryAfterMs: known.retryAfterMs === null ? null : Math.max(0, known.retryAfterMs - (now - offeredAtMs)),
        deadlineMs,
        calls: known.calls,
        // The retry budget has paid for one.
        maxCalls: budget === null ? null : known.calls + 1,
        bodyBytes: exchange.body.length,
      };
      try {
        const reply = await bus.request(retryOffer, query, { timeoutMs: offerTimeoutMs, signal: exchange.signal });
        const isKnown = !reply.accepted || (await workers.holds(reply, exchange.signal));
        observer.offer(!reply.accepted ? reply.reason : isKnown ? 'accepted' : 'unknown_worker');
        if (!isKnown) timeouts++;
        else if (reply.accepted) return reply;
        else if (reply.reason === 'hopeless') return null;
      } catch (error) {
        const result = offerFailure(error);
        observer.offer(result);
        // A worker that hangs stays in the group; the next offer may reach another one.
        if (result !== 'timeout') return null;
        timeouts++;
      }
    }
    return null;
  }

  #handOver(place: Place, job: Job, exchange: Exchange): Promise<AttemptEnd> {
    const { origin, path } = splitUrl(place.url);
    const method = exchange.request.method ?? 'POST';
    return attempt(
      {
        origin,
        path,
        method: 'POST',
        headers: HeaderLines.of(
          encodeJobRequest(exchange.fallbackHeaders(), { token: place.token, method, target: exchange.target }),
        ),
        body: exchange.body,
        // The worker holds its head back until there is a first byte, just as the ingress does.
        // Each word of the worker begins this anew, so the job itself is watched besides.
        headersTimeoutMs: this.#deadlineMs(exchange) + graceMs,
        once: true,
      },
      { exchange, gateway: this.#parts, ourKey: false, job },
    );
  }

  #deadlineMs(exchange: Exchange): number {
    return Math.round(exchange.startedAtMs + this.#parts.requestDeadlineMs - performance.now());
  }
}

/** One job in the hands of one worker: what the worker tells of it, and what that means. */
class Job implements JobWatch {
  readonly #exchange: Exchange;
  readonly #lost = new AbortController();
  readonly #lostAtMs: number;
  readonly signal: AbortSignal;
  #progress: QueueProgress;
  #toldAtMs = performance.now();
  /** The longest silence that the worker allows itself; null: it says nothing twice. */
  #silenceMs: number | null = firstWordMs;
  /** Looks in a row that found nothing new. Not time: after a standstill of this process, what came meanwhile is yet to be read. */
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
    this.signal = AbortSignal.any([exchange.signal, this.#lost.signal]);
  }

  /** Gives the worker up when it is silent, or past the deadline. Once its answer is there it is a call as any other. */
  look(): void {
    if (this.#answering) return;
    this.#silentLooks++;
    const silent = this.#silenceMs !== null && this.#silentLooks * watchMs > this.#silenceMs;
    if (silent || performance.now() > this.#lostAtMs) this.#lost.abort();
  }

  onInformation(headers: HeaderLines): void {
    const told = decodeJobProgress(headers.list);
    if (told === null) return;
    this.#exchange.attempts += told.calls - this.#progress.calls;
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
    return decodeJobResult(headers.list)?.end === 'answered';
  }

  outcome(end: AttemptEnd): Outcome | null {
    switch (end.kind) {
      case 'relayed':
      case 'broken':
        return null;
      case 'client-left':
        // Or the worker was given up.
        return this.#exchange.signal.aborted ? null : { kind: 'queue-lost', progress: this.#left() };
      case 'failed':
        return { kind: 'queue-lost', progress: this.#left() };
      case 'refused':
        return this.#notAnswered({ ...end.answer, headers: end.answer.headers.list });
    }
  }

  #notAnswered(given: StoredAnswer): Outcome {
    const result = decodeJobResult(given.headers);
    const answer = { ...given, headers: withoutJobHeaders(given.headers) };
    switch (result?.end) {
      case 'limited': {
        const asked = retryAfterMs(answer.headers, Date.now());
        return { kind: 'queue-limited', answer, progress: { calls: result.calls, retryAfterMs: asked } };
      }
      case 'exhausted':
      case 'failed': {
        if (result.failure === null) return { kind: 'refused', answer, instances: [] };
        if (!isFailureCause(result.failure)) return { kind: 'queue-refused' };
        const { cause, error } = failureOf(result.failure);
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

function jobResult(end: AttemptEnd, outcome: Outcome | null): QueueJobResult {
  switch (outcome?.kind) {
    case undefined:
      return end.kind === 'relayed' ? 'answered' : end.kind === 'broken' ? 'broken' : 'cancelled';
    case 'queue-lost':
      return 'lost';
    case 'refused':
      return outcome.answer.status === 429 ? 'exhausted' : 'failed';
    case 'queue-limited':
      return 'limited';
    case 'queue-refused':
      return 'not_called';
    default:
      return 'failed';
  }
}

function offerFailure(error: unknown): OfferResult {
  const code = error instanceof GatewayError ? error.code : undefined;
  switch (code) {
    case 'client_closed':
      throw error;
    case 'bus_no_responders':
      return 'no_responders';
    case 'bus_timeout':
      return 'timeout';
    default:
      return 'unavailable';
  }
}
