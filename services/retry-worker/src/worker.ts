import { randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Announcer, announce, type Bus, type Subscription } from '@llm-gateway/bus';
import { endToEndHeaders, splitUrl } from '@llm-gateway/http1';
import {
  decodeJobRequest,
  type RetryOffer,
  type RetryReply,
  retryAnnounce,
  retryOffer,
  withoutJobHeaders,
} from '@llm-gateway/protocol';
import type { HeldTables } from '@llm-gateway/routing';
import { type WorkLimits, WorkQueue, type WorkSlot } from '@llm-gateway/runtime';
import type { Tracing } from '@llm-gateway/tracing';
import { backoffMs } from './backoff.ts';
import { beatMs, Job, type JobParts, type JobResult, mayCall, type Terms } from './job.ts';
import { JobAnswer } from './job-answer.ts';
import { JobTrace } from './job-trace.ts';
import type { JobLabel, OfferResult } from './observer.ts';

import { readBody } from './request-body.ts';

export interface WorkerParts extends JobParts {
  readonly bus: Bus;
  /** Of this process, by which it announces itself. */
  readonly name: string;
  /** By the generations of their endpoints. */
  readonly tables: HeldTables;
  /** Null: no traces. */
  readonly tracing: Tracing | null;
  readonly limits: WorkLimits;
}

/** One job from its acceptance to its end. */
interface Held {
  readonly terms: Terms;
  readonly slot: WorkSlot;
  readonly bodyBytes: number;
  readonly token: string;
  readonly sinceMs: number;
}

/** An ingress comes at once or not at all. */
const reservedMs = 5000;
/** What the next hop gets from undici. */
const rewritten: ReadonlySet<string> = new Set(['host', 'content-length']);

/**
 * Answers offers, and holds the jobs that follow from them. It is in the queue group only while it
 * has room: of an offer that nobody can take the bus tells at once, and one that is refused in the
 * moment between finds this worker gone and the others still there.
 */
export class RetryWorker implements Disposable {
  readonly queue: WorkQueue;
  readonly #id: string;
  readonly #parts: WorkerParts;
  /** In order of acceptance. */
  readonly #held = new Set<Held>();
  /** Those that the ingress has not come for yet. */
  readonly #reserved = new Map<string, { held: Held; timer: NodeJS.Timeout }>();
  readonly #running = new Set<Job>();
  /** Runs while there are jobs. */
  #beat: NodeJS.Timeout | undefined;
  readonly #idleListeners = new Set<() => void>();
  #membership: Subscription | undefined;
  #announcer: Announcer | undefined;
  #url = '';
  #open = false;

  constructor(parts: WorkerParts) {
    this.#parts = parts;
    this.#id = parts.name;
    this.queue = new WorkQueue(parts.limits, () => this.#joinOrLeave());
  }

  /** Jobs are no longer reported. */
  [Symbol.dispose](): void {
    clearInterval(this.#beat);
    this.#announcer?.[Symbol.dispose]();
  }

  /** Takes offers from now on; jobs come to `${url}/jobs/<id>`. */
  open(url: string): void {
    this.#url = url;
    this.#open = true;
    this.#announcer ??= announce(this.#parts.bus, retryAnnounce, () => ({ name: this.#id, origin: this.#url }));
    this.#joinOrLeave();
  }

  /** Takes no more offers; waiting jobs go back to their ingress, calls go on. */
  close(): void {
    this.#open = false;
    this.#joinOrLeave();
    for (const id of [...this.#reserved.keys()]) this.#expire(id, 'handed_back');
    for (const job of this.#running) job.handBack();
  }

  /** Resolves when no job is left, or when `signal` aborts. */
  async idle(signal: AbortSignal): Promise<void> {
    if (this.#held.size === 0 || signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idleListeners.add(resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
    await promise;
  }

  /** Age of the oldest job; 0 when there is none. */
  get oldestMs(): number {
    for (const { sinceMs } of this.#held) return performance.now() - sinceMs;
    return 0;
  }

  #joinOrLeave(): void {
    const { bus, rules } = this.#parts;
    if (this.#open && this.queue.room && rules.maxCount !== 0) {
      this.#membership ??= bus.respond(retryOffer, (offer) => this.#answerOffer(offer));
    } else {
      this.#membership?.close();
      this.#membership = undefined;
    }
  }

  #answerOffer(offer: RetryOffer): RetryReply {
    const reply = this.#consider(offer);
    this.#parts.observer.offer(typeof reply === 'string' ? reply : 'accepted');
    if (typeof reply === 'string') return { accepted: false, worker: this.#id, reason: reply };
    return reply;
  }

  #consider(offer: RetryOffer): RetryReply | Exclude<OfferResult, 'accepted'> {
    const { tables, rules } = this.#parts;
    if (!this.#open) return 'draining';
    const endpoint = tables.find(offer.generation, performance.now())?.endpoints[offer.endpoint];
    if (endpoint === undefined) return 'generation';
    const { calls, maxCalls, retryAfterMs } = offer;
    const shortestMs = backoffMs(calls, rules, { retryAfterMs, random: () => 0 });
    if (!mayCall(calls, rules) || shortestMs > offer.deadlineMs) return 'hopeless';
    const slot = this.queue.take(offer.bodyBytes);
    if (slot === null) return 'full';

    const sinceMs = performance.now();
    const terms: Terms = {
      requestId: offer.requestId,
      endpoint,
      calls,
      maxCalls,
      retryAfterMs,
      deadlineAtMs: sinceMs + offer.deadlineMs,
    };
    const id = randomUUID();
    const token = randomBytes(24).toString('base64url');
    const held: Held = { terms, slot, bodyBytes: offer.bodyBytes, token, sinceMs };
    this.#held.add(held);
    this.#reserved.set(id, { held, timer: setTimeout(() => this.#expire(id, 'expired'), reservedMs).unref() });
    return { accepted: true, worker: this.#id, url: `${this.#url}/jobs/${id}`, token };
  }

  /** Handles the request of an accepted job, and rejects any other. Never throws. */
  async serve(id: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = decodeJobRequest(request.rawHeaders);
    const held = asked === null ? undefined : this.#claim(id, asked.token);
    if (asked === null || held === undefined) {
      request.resume();
      response.writeHead(404, { connection: 'close' }).end();
      return;
    }
    const answer = new JobAnswer(response);
    const body = await readBody(request, held.bodyBytes);
    if (body === null) {
      response.destroy();
      this.#end(held, { outcome: 'cancelled' });
      return;
    }
    const headers = withoutJobHeaders(endToEndHeaders(request.rawHeaders, rewritten));
    const { terms, slot } = held;
    const { requestId } = terms;
    const trace = JobTrace.of(this.#parts.tracing, {
      headers,
      requestId,
      endpoint: splitUrl(terms.endpoint.baseUrl).host,
    });
    const job = new Job(
      { terms, slot, request: { method: asked.method, target: asked.target, headers, body } },
      { answer, parts: this.#parts, trace },
    );
    this.#running.add(job);
    this.#beat ??= setInterval(() => this.#beatAll(), beatMs).unref();
    response.on('close', () => job.leave());
    if (response.destroyed) job.leave();
    if (!this.#open) job.handBack();
    try {
      const result = await job.run();
      await sent(response);
      this.#end(held, { outcome: outcomes[result.kind], job });
    } catch (error) {
      this.#parts.observer.defect(error, terms.requestId);
      response.destroy();
      this.#end(held, { outcome: 'failed', job });
    } finally {
      this.#running.delete(job);
    }
  }

  #beatAll(): void {
    for (const job of this.#running) job.beat();
    if (this.#running.size > 0) return;
    clearInterval(this.#beat);
    this.#beat = undefined;
  }

  #claim(id: string, token: string): Held | undefined {
    const reservation = this.#reserved.get(id);
    if (reservation === undefined || !sameToken(reservation.held.token, token)) return undefined;
    clearTimeout(reservation.timer);
    this.#reserved.delete(id);
    return reservation.held;
  }

  #expire(id: string, outcome: 'expired' | 'handed_back'): void {
    const reservation = this.#reserved.get(id);
    if (reservation === undefined) return;
    clearTimeout(reservation.timer);
    this.#reserved.delete(id);
    this.#end(reservation.held, { outcome });
  }

  #end(held: Held, { outcome, job }: { outcome: JobLabel; job?: Job }): void {
    this.#held.delete(held);
    job?.trace?.ended(outcome, job.calls);
    this.#parts.observer.ended({
      requestId: held.terms.requestId,
      ...(job?.trace && { trace_id: job.trace.id }),
      endpoint: job?.url.host ?? '',
      outcome,
      calls: job?.calls ?? 0,
      heldMs: performance.now() - held.sinceMs,
    });
    held.slot.release();
    if (this.#held.size > 0) return;
    for (const resolve of this.#idleListeners) resolve();
    this.#idleListeners.clear();
  }
}

const outcomes = {
  answered: 'answered',
  broken: 'broken',
  cancelled: 'cancelled',
  exhausted: 'exhausted',
  limited: 'limited',
  failed: 'failed',
  'handed-back': 'handed_back',
} as const satisfies Record<JobResult['kind'], JobLabel>;

/** Its last byte must be with the kernel before this process may end for the want of jobs. */
async function sent(response: ServerResponse): Promise<void> {
  if (response.closed || response.writableFinished) return;
  await new Promise((resolve) => response.once('finish', resolve).once('close', resolve));
}

function sameToken(expected: string, given: string): boolean {
  const [a, b] = [Buffer.from(expected), Buffer.from(given)];
  return a.length === b.length && timingSafeEqual(a, b);
}
