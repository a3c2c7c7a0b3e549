import type { FlatHeaders, HeaderLines } from '@llm-gateway/http1';
import { withoutJobHeaders } from '@llm-gateway/protocol';
import { countsAsFailed } from '@llm-gateway/routing';
import {
  type CancelSignal,
  type RelayEnd,
  type RelayTarget,
  type ResponseHead,
  relay,
  type UpstreamFailure,
  type UpstreamRequest,
} from '@llm-gateway/upstream';
import { ownResponseHeaders } from './client-response.ts';
import type { Exchange } from './exchange.ts';
import type { Outcome } from './failover.ts';
import type { InstanceLeg } from './instance-leg.ts';
import type { Gateway } from './request.ts';

/** How one call to one upstream ended. */
export type AttemptEnd = RelayEnd;

export interface AttemptContext {
  readonly exchange: Exchange;
  readonly gateway: Pick<Gateway, 'upstream' | 'observer' | 'exposeRouteHeaders'>;
  /** See `countsAsFailed`. */
  readonly ourKey: boolean;
  /** This call belongs to an attempt that is counted already. */
  readonly counted?: boolean;
  /** Set when the upstream is an instance. */
  readonly leg?: Pick<InstanceLeg, 'answered'>;
  /** Set when the upstream is a retry worker, which makes the calls itself. */
  readonly job?: JobWatch;
}

/** Reads what a retry worker tells of the job it holds. */
export interface JobWatch {
  /** Aborts when the client leaves, and when the worker is taken for lost. */
  readonly signal: AbortSignal;
  onInformation(headers: HeaderLines): void;
  /** Whether the answer is relayed; otherwise it is kept back. */
  isForClient(head: ResponseHead): boolean;
}

/** Calls one upstream once. An answer that counts as failed is kept back; any other is relayed to the client as it arrives. */
export function attempt(request: UpstreamRequest, context: AttemptContext): Promise<AttemptEnd> {
  if (context.job === undefined) {
    context.exchange.phase = 'calling';
    if (context.counted !== true) context.exchange.attempts++;
  }
  const asked = context.exchange.repeated ? { ...request, once: true } : request;
  return relay(context.gateway.upstream, asked, new Attempt(context));
}

class Attempt implements RelayTarget {
  readonly #context: AttemptContext;
  readonly #exchange: Exchange;

  constructor(context: AttemptContext) {
    this.#context = context;
    this.#exchange = context.exchange;
  }

  get signal(): CancelSignal {
    return this.#context.job?.signal ?? this.#exchange.signal;
  }

  get committed(): boolean {
    return this.#exchange.client.committed;
  }

  onInformation(headers: HeaderLines): void {
    this.#context.job?.onInformation(headers);
  }

  accept(head: ResponseHead): boolean {
    const { ourKey, gateway, job, leg } = this.#context;
    leg?.answered(head.status);
    if (job === undefined ? countsAsFailed(head.status, ourKey) : !job.isForClient(head)) return false;
    const own = this.#exchange.ownHeaders(gateway.exposeRouteHeaders);
    const headers = job === undefined ? head.headers.list : withoutJobHeaders(head.headers.list);
    this.#exchange.client.prepare(head.status, withOwnHeaders(own, headers));
    return true;
  }

  write(chunk: Buffer, onDrain: () => void): boolean {
    this.#context.gateway.observer.chunk(this.#exchange);
    return this.#exchange.client.write(chunk, onDrain);
  }

  end(): void {
    this.#exchange.client.end();
  }

  onRepeat(): void {
    this.#exchange.repeated = true;
  }

  breakOff(failure: UpstreamFailure): void {
    this.#exchange.brokenBy = failure.cause;
    this.#exchange.client.breakOff(failure.error.code, failure.error.message);
  }
}

/** An upstream's headers as the client gets them: `own` first, and none of the upstream's under those names. */
export function withOwnHeaders(own: FlatHeaders, upstream: readonly string[]): FlatHeaders {
  const headers = own;
  for (let i = 0; i + 1 < upstream.length; i += 2) {
    const name = upstream[i] as string;
    if (!ownResponseHeaders.has(name.toLowerCase())) headers.push(name, upstream[i + 1] as string);
  }
  return headers;
}

/** The end of an attempt as the failover machine takes it; null when nothing is left to do. */
export function outcomeOf(end: AttemptEnd, instances: readonly string[]): Outcome | null {
  switch (end.kind) {
    case 'relayed':
    case 'broken':
    case 'client-left':
      return null;
    case 'refused':
      return { kind: 'refused', answer: { ...end.answer, headers: end.answer.headers.list }, instances };
    case 'failed':
      return { kind: 'failed', code: end.failure.error.code, cause: end.failure.cause, instances };
  }
}
