import { setTimeout as delay } from 'node:timers/promises';
import { type FlatHeaders, HeaderLines, retryAfterMs, splitUrl } from '@llm-gateway/http1';
import type { JobProgress, JobRequest, ReportedJobResult } from '@llm-gateway/protocol';
import { type Endpoint, endpointHeaders, endpointUrl, hasOwnCredential } from '@llm-gateway/routing';
import type { WorkSlot } from '@llm-gateway/runtime';
import { type HoldRule, type RelayResult, relay, type Upstream, type WholeResponse } from '@llm-gateway/upstream';
import { type BackoffRules, backoffMs } from './backoff.ts';
import { EndpointRelay } from './endpoint-relay.ts';
import type { JobAnswer } from './job-answer.ts';
import type { JobTrace } from './job-trace.ts';
import type { Observer } from './observer.ts';

export interface JobRules extends BackoffRules {
  /** Calls of one job; -1: as many as the deadline allows. */
  readonly maxCount: number;
}

/** What was agreed on when the job was accepted. */
export interface Terms {
  readonly requestId: string;
  readonly endpoint: Endpoint;
  /** Calls that other workers made for this job. */
  readonly calls: number;
  /** Total calls that the ingress allows; null: as many as the rules do. */
  readonly maxCalls: number | null;
  /** What the endpoint's last 429 asked for; null when it asked for nothing. */
  readonly retryAfterMs: number | null;
  /** On the clock of `performance.now()`. */
  readonly deadlineAtMs: number;
}

/** The client's request, as the ingress handed it over. */
export interface ClientRequest extends Pick<JobRequest, 'method' | 'target'> {
  readonly headers: FlatHeaders;
  readonly body: Buffer;
}

export interface JobParts {
  readonly upstream: Upstream;
  readonly observer: Observer;
  readonly rules: JobRules;
  readonly headersTimeoutMs: number;
  /** By path, the rule for holding event streams until their first content. */
  readonly holdRules: ReadonlyMap<string, HoldRule>;
}

/**
 * How a job ended. Those with an answer are reported to the ingress; of the others it sees all there is
 * to see.
 */
export type JobResult =
  | { readonly kind: 'answered' | 'broken' | 'cancelled' }
  | {
      readonly kind: Exclude<ReportedJobResult['kind'], 'answered'>;
      readonly answer: WholeResponse | null;
      readonly cause: string | null;
    };

const maxTimerMs = 2 ** 31 - 1;
/** How often `beat` is to be called. */
export const beatMs = 1000;
/** After so long without a report an ingress considers a job lost and offers it again. */
const silentMs = 3 * beatMs;

/** Whether a job that was called `calls` times may be called once more. */
export function mayCall(calls: number, { maxCount }: JobRules): boolean {
  return maxCount < 0 || calls < maxCount;
}

/**
 * One job in this worker's hands: it waits, calls, and waits again, until the ingress has an answer
 * or nothing is left to do.
 */
export class Job {
  readonly terms: Terms;
  /** Scheme, host and port of the endpoint, its host for logs, and the path there. */
  readonly url: ReturnType<typeof splitUrl>;
  /** Null when the request is not traced. */
  readonly trace: JobTrace | null;
  readonly #request: ClientRequest;
  readonly #slot: WorkSlot;
  readonly #answer: JobAnswer;
  readonly #parts: JobParts;
  /** Aborts when a call has no sense any more: the ingress has left, or the deadline has passed. */
  readonly #left = new AbortController();
  /** Aborts when waiting has no sense any more. */
  readonly #awake = new AbortController();
  #stopped: JobResult | undefined;
  #expired = false;
  #calls: number;
  #phase: JobProgress['phase'] = 'waiting';
  /**
   * When the endpoint may be called again by its own word, on the clock of `performance.now()`;
   * null when it did not say.
   */
  #retryAtMs: number | null = null;
  #toldAtMs = performance.now();
  /** A call was written once more; see `UpstreamRequest.once`. */
  #repeated = false;

  constructor(
    job: { terms: Terms; request: ClientRequest; slot: WorkSlot },
    { answer, parts, trace }: { answer: JobAnswer; parts: JobParts; trace: JobTrace | null },
  ) {
    this.trace = trace;
    this.terms = job.terms;
    this.url = splitUrl(endpointUrl(job.request.target, job.terms.endpoint));
    this.#request = job.request;
    this.#slot = job.slot;
    this.#answer = answer;
    this.#parts = parts;
    this.#calls = job.terms.calls;
  }

  /** Made by this worker. */
  get calls(): number {
    return this.#calls - this.terms.calls;
  }

  /** The ingress is gone: whatever is done for it stops. */
  leave(): void {
    this.#stopped = { kind: 'cancelled' };
    this.#left.abort();
    this.#awake.abort();
  }

  /** This worker is ending: a wait, under way or due, is left to another one; a call goes on. */
  handBack(): void {
    this.#stopped ??= { kind: 'handed-back', answer: null, cause: 'none' };
    this.#awake.abort();
  }

  /**
   * Called each second: reports to the ingress that the job is still held, or ends it when its deadline
   * has passed.
   */
  beat(): void {
    if (this.#answer.committed) return;
    if (this.#phase === 'waiting' && this.#isGivenUp()) {
      this.handBack();
    } else if (this.#phase === 'calling' && this.#leftMs() <= 0) {
      this.#expired = true;
      this.#left.abort();
    } else {
      this.#tell();
    }
  }

  async run(): Promise<JobResult> {
    const result = await this.#callUntilItEnds();
    if ('answer' in result) {
      this.#answer.give({ kind: result.kind, calls: this.#calls, cause: result.cause }, result.answer);
    }
    return result;
  }

  async #callUntilItEnds(): Promise<JobResult> {
    const { rules } = this.#parts;
    let asked = this.terms.retryAfterMs;
    let last: WholeResponse | null = null;
    for (;;) {
      const waitMs = backoffMs(this.#calls, rules, { retryAfterMs: asked, random: Math.random });
      if (!mayCall(this.#calls, rules) || waitMs > this.#leftMs()) return exhausted(last);
      if (this.#calls >= (this.terms.maxCalls ?? Number.POSITIVE_INFINITY)) {
        return { kind: 'limited', answer: last, cause: null };
      }
      if (!(await this.#wait(waitMs, asked))) return this.#stopped ?? exhausted(last);
      const end = await this.#call();
      switch (end.kind) {
        case 'answered':
        case 'broken':
          return { kind: end.kind };
        case 'cancelled':
          return this.#expired ? { kind: 'failed', answer: null, cause: 'headers_timeout' } : { kind: 'cancelled' };
        case 'failed':
          return { kind: 'failed', answer: null, cause: end.failure.cause };
        case 'rejected':
          if (end.answer.status !== 429) return { kind: 'failed', answer: end.answer, cause: null };
          last = end.answer;
          asked = retryAfterMs(last.headers.list, Date.now());
      }
    }
  }

  /**
   * Waits out the delay and for a turn to call. False when it came to nothing: stopped, or no
   * turn before the deadline.
   */
  async #wait(waitMs: number, asked: number | null): Promise<boolean> {
    const beganAtMs = performance.now();
    const { signal } = this.#awake;
    this.#phase = 'waiting';
    this.#retryAtMs = asked === null ? null : beganAtMs + asked;
    this.#tell();
    const span = this.trace?.waiting();
    try {
      await delay(Math.min(waitMs, maxTimerMs), undefined, { signal });
      if (!(await this.#slot.turn(Math.min(this.#leftMs(), maxTimerMs), signal))) return false;
    } catch (error) {
      if (signal.aborted) return false;
      throw error;
    } finally {
      span?.end();
    }
    if (this.#isGivenUp()) {
      this.handBack();
      return false;
    }
    this.#parts.observer.waited(performance.now() - beganAtMs);
    return true;
  }

  async #call(): Promise<RelayResult> {
    const { upstream, observer, headersTimeoutMs, holdRules } = this.#parts;
    const { endpoint } = this.terms;
    const { method, headers, body } = this.#request;
    this.#calls++;
    // Told before the call is made, so that the ingress has counted it even if this process dies of it.
    this.#phase = 'calling';
    this.#retryAtMs = null;
    this.#tell();
    const span = this.trace?.calling(this.#calls - 1, this.url.host);
    const sent = endpointHeaders(headers, endpoint);
    const end = await relay(
      upstream,
      {
        origin: this.url.origin,
        path: this.url.path,
        method,
        headers: span === undefined || this.trace === null ? HeaderLines.of(sent) : this.trace.headers(sent, span),
        body,
        headersTimeoutMs: Math.max(1, Math.min(endpoint.timeoutMs || headersTimeoutMs, Math.round(this.#leftMs()))),
        outside: true,
        once: this.#repeated,
      },
      new EndpointRelay(this.#answer, {
        ourKey: hasOwnCredential(endpoint),
        calls: this.#calls,
        signal: this.#left.signal,
        holdRule: holdRules.get(this.#request.target.split('?', 1)[0] ?? '') ?? null,
        onRepeat: () => {
          this.#repeated = true;
        },
      }),
    );
    this.#slot.endTurn();
    if (span !== undefined) this.trace?.called(span, end);
    observer.called(this.url.host, end);
    return end;
  }

  #tell(): void {
    const now = performance.now();
    const retryAfterMs = this.#retryAtMs === null ? null : Math.max(0, this.#retryAtMs - now);
    this.#answer.tell({ phase: this.#phase, calls: this.#calls, retryAfterMs, repeatMs: beatMs });
    this.#toldAtMs = now;
  }

  /**
   * This process was stopped, or busy, for so long that another worker may have the job by now. It
   * must not make that one's call as well.
   */
  #isGivenUp(): boolean {
    return performance.now() - this.#toldAtMs > silentMs;
  }

  #leftMs(): number {
    return this.terms.deadlineAtMs - performance.now();
  }
}

function exhausted(last: WholeResponse | null): JobResult {
  return { kind: 'exhausted', answer: last, cause: last === null ? 'none' : null };
}
