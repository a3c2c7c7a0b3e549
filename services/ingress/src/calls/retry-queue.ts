import type { Bus } from '@llm-gateway/bus';
import { HeaderLines, retryAfterMs, splitUrl } from '@llm-gateway/http1';
import { encodeJobRequest, GatewayError, retryOffer } from '@llm-gateway/protocol';
import { type Endpoint, headersForEndpoint, targetForEndpoint, withoutSecrets } from '@llm-gateway/routing';
import type { Upstream } from '@llm-gateway/upstream';
import type { Exchange } from '../exchange/exchange.ts';
import type { QueueProgress, Step, StepResult } from '../failover/failover.ts';
import type { RetryBudget } from '../failover/retry-budget.ts';
import type { Observer, OfferResult, QueueJobResult } from '../observe/observer.ts';
import { type AttemptResult, attempt } from './attempt.ts';
import type { KnownWorkers } from './known-workers.ts';
import { graceMs, RetryJob, watchMs } from './retry-job.ts';
import { SecretMask } from './secret-mask.ts';
import { bodyWithModel } from './upstream-model.ts';

type QueueStep = Extract<Step, { do: 'queue' }>;

export interface RetryQueueParts {
  readonly bus: Bus;
  readonly workers: KnownWorkers;
  readonly upstream: Upstream;
  readonly observer: Observer;
  readonly exposeRouteHeaders: boolean;
  /** Null: no budget. */
  readonly budget: RetryBudget | null;
  /** A job ends when its request is that old, unless its answer has begun by then. */
  readonly requestDeadlineMs: number;
}

/**
 * A worker leaves the group before it refuses, so that so many offers reach as many workers; see
 * `retryOffer`.
 */
const maxOffers = 16;
const offerTimeoutMs = 1000;

/** The slot that a worker holds for a job. */
interface JobSlot {
  readonly url: string;
  readonly token: string;
}

/**
 * The ingress's side of the 429 retry queue: offers a job over the bus, streams the request to the
 * worker that takes it, and relays its answer. Where there is a retry budget it has paid for one
 * call, and the worker gets no more than that at a time.
 */
export class RetryQueue implements Disposable {
  readonly #parts: RetryQueueParts;
  /** In the hands of workers. */
  readonly #jobs = new Set<RetryJob>();
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

  /**
   * One step of the failover machine. Null when nothing is left to do. Throws `client_closed` when
   * the client leaves while the job is offered.
   */
  async call(step: QueueStep, exchange: Exchange): Promise<StepResult | null> {
    exchange.entered('queued');
    const span = exchange.trace?.queued();
    const known = step.progress ?? {
      calls: 0,
      retryAfterMs: retryAfterMs(step.answer.headers, Date.now()),
    };
    const job = new RetryJob(known, exchange, { deadlineMs: this.#deadlineMs(exchange), budget: this.#parts.budget });
    try {
      const slot = await this.#offer(step.endpoint, known, exchange);
      if (slot === null) {
        this.#parts.observer.job('refused');
        return { kind: 'queue-refused' };
      }
      this.#jobs.add(job);
      this.#watch ??= setInterval(() => this.#lookAtAll(), watchMs).unref();
      const end = await this.#handOver({ ...step, slot }, job, exchange);
      const outcome = job.outcome(end);
      this.#parts.observer.job(jobResult(end, outcome));
      return forClients(outcome, exchange.table.endpoints[step.endpoint]);
    } finally {
      span?.end();
      this.#jobs.delete(job);
      if (!job.called) this.#parts.budget?.give();
    }
  }

  /** Offers until a worker accepts; null when none does. */
  async #offer(endpoint: number, known: QueueProgress, exchange: Exchange): Promise<JobSlot | null> {
    const { bus, workers, observer, budget } = this.#parts;
    const offeredAtMs = performance.now();
    const upstreamModel = exchange.table.endpoints[endpoint]?.upstreamModel ?? '';
    /** Offers that cost a wait. */
    let timeouts = 0;
    for (let offers = 0; offers < maxOffers && timeouts < 2; offers++) {
      const now = performance.now();
      const deadlineMs = this.#deadlineMs(exchange);
      if (deadlineMs <= 0) return null;
      const query = {
        requestId: exchange.id,
        generation: exchange.table.endpointGeneration,
        endpoint,
        retryAfterMs: known.retryAfterMs === null ? null : Math.max(0, known.retryAfterMs - (now - offeredAtMs)),
        deadlineMs,
        calls: known.calls,
        // The retry budget has paid for one.
        maxCalls: budget === null ? null : known.calls + 1,
        bodyBytes: bodyWithModel(exchange, upstreamModel).length,
      };
      try {
        const reply = await bus.request(retryOffer, query, {
          timeoutMs: offerTimeoutMs,
          signal: exchange.signal.abortSignal,
        });
        const isKnown = !reply.accepted || (await workers.holds(reply, exchange.signal.abortSignal));
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

  #handOver(
    { slot, endpoint: index }: { slot: JobSlot; endpoint: number },
    job: RetryJob,
    exchange: Exchange,
  ): Promise<AttemptResult> {
    const { origin, path } = splitUrl(slot.url);
    const endpoint = exchange.table.endpoints[index];
    if (endpoint === undefined) throw new Error(`no endpoint ${index} in the route config`);
    const headers = headersForEndpoint(exchange.request.fallbackHeaders(), endpoint);
    const { method } = exchange.request;
    const target = targetForEndpoint(exchange.request.target, endpoint);
    const change = SecretMask.of(endpoint);
    return attempt(
      {
        origin,
        path,
        method: 'POST',
        headers: HeaderLines.of(encodeJobRequest(headers, { token: slot.token, method, target })),
        body: bodyWithModel(exchange, endpoint.upstreamModel),
        // The worker holds its head back until there is a first byte, just as the ingress does.
        // Each word of the worker begins this anew, so the job itself is watched besides.
        headersTimeoutMs: this.#deadlineMs(exchange) + graceMs,
        once: true,
      },
      {
        exchange,
        gateway: this.#parts,
        kind: 'worker',
        target: exchange.endpoint,
        ourKey: false,
        job,
        ...(change && { change }),
      },
    );
  }

  #deadlineMs(exchange: Exchange): number {
    return Math.round(exchange.startedAtMs + this.#parts.requestDeadlineMs - performance.now());
  }
}

/** A job's failed answer is the endpoint's. */
function forClients(outcome: StepResult | null, endpoint: Endpoint | undefined): StepResult | null {
  if (endpoint === undefined || outcome === null || !('answer' in outcome)) return outcome;
  return { ...outcome, answer: withoutSecrets(outcome.answer, endpoint) };
}

function jobResult(end: AttemptResult, outcome: StepResult | null): QueueJobResult {
  switch (outcome?.kind) {
    case undefined:
      return end.kind === 'answered' ? 'answered' : end.kind === 'broken' ? 'broken' : 'cancelled';
    case 'queue-lost':
      return 'lost';
    case 'rejected':
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
