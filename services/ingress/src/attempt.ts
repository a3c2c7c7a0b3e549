import { withoutJobHeaders } from '@llm-gateway/protocol';
import { countsAsFailed } from '@llm-gateway/routing';
import {
  type FlatHeaders,
  KeptAnswer,
  type ResponseHead,
  type ResponseSink,
  type UpstreamCall,
  type UpstreamFailure,
  type UpstreamRequest,
} from '@llm-gateway/upstream';
import { ownResponseHeaders } from './client-response.ts';
import type { Exchange } from './exchange.ts';
import type { Outcome, StoredAnswer } from './failover.ts';
import type { Gateway } from './request.ts';

/** How one call to one upstream ended. */
export type AttemptEnd =
  /** The client has the whole answer. */
  | { readonly kind: 'relayed'; readonly status: number }
  /** Nothing reached the client; the upstream's answer is kept. */
  | { readonly kind: 'refused'; readonly answer: StoredAnswer }
  /** Nothing reached the client; there was no whole answer. */
  | { readonly kind: 'failed'; readonly failure: UpstreamFailure }
  /** The answer broke after the client had part of it. */
  | { readonly kind: 'broken'; readonly failure: UpstreamFailure }
  | { readonly kind: 'client-left' };

export interface AttemptContext {
  readonly exchange: Exchange;
  readonly gateway: Pick<Gateway, 'upstream' | 'observer' | 'exposeRouteHeaders'>;
  /** See `countsAsFailed`. */
  readonly ourKey: boolean;
  /** This call belongs to an attempt that is counted already. */
  readonly counted?: boolean;
  /** Set when the upstream is a retry worker, which makes the calls itself. */
  readonly job?: JobWatch;
}

/** Reads what a retry worker tells of the job it holds. */
export interface JobWatch {
  onInformation(headers: FlatHeaders): void;
  /** Whether the answer is relayed; otherwise it is kept back. */
  isForClient(head: ResponseHead): boolean;
}

/** Calls one upstream once. An answer that counts as failed is kept back; any other is relayed to the client as it arrives. */
export function attempt(request: UpstreamRequest, context: AttemptContext): Promise<AttemptEnd> {
  if (context.job === undefined) {
    context.exchange.phase = 'calling';
    if (context.counted !== true) context.exchange.attempts++;
  }
  return new Promise((resolve) => {
    new Attempt(request, context, resolve);
  });
}

class Attempt implements ResponseSink {
  readonly #context: AttemptContext;
  readonly #exchange: Exchange;
  readonly #resolve: (end: AttemptEnd) => void;
  readonly #call: UpstreamCall;
  #status = 0;
  /** The answer that is kept back; undefined while relaying. */
  #kept: KeptAnswer | undefined;

  constructor(request: UpstreamRequest, context: AttemptContext, resolve: (end: AttemptEnd) => void) {
    this.#context = context;
    this.#exchange = context.exchange;
    this.#resolve = resolve;
    this.#call = context.gateway.upstream.call(request, this);
    if (this.#exchange.signal.aborted) this.#leave();
    else this.#exchange.signal.addEventListener('abort', this.#leave);
  }

  onInformation(headers: FlatHeaders): void {
    this.#context.job?.onInformation(headers);
  }

  onHead(head: ResponseHead): void {
    this.#status = head.status;
    const { ourKey, gateway, job } = this.#context;
    if (job === undefined ? countsAsFailed(head.status, ourKey) : !job.isForClient(head)) {
      this.#kept = new KeptAnswer(head);
      return;
    }
    const own = this.#exchange.ownHeaders(gateway.exposeRouteHeaders);
    const headers = job === undefined ? head.headers : withoutJobHeaders(head.headers);
    this.#exchange.client.prepare(head.status, withOwnHeaders(own, headers));
  }

  onData(chunk: Buffer): boolean {
    if (this.#kept === undefined) {
      this.#context.gateway.observer.chunk(this.#exchange);
      return this.#exchange.client.write(chunk, this.#resume);
    }
    this.#kept.take(chunk);
    return true;
  }

  onEnd(): void {
    if (this.#kept === undefined) {
      this.#exchange.client.end();
      this.#finish({ kind: 'relayed', status: this.#status });
      return;
    }
    this.#finish({ kind: 'refused', answer: this.#kept.whole() });
  }

  onFailure(failure: UpstreamFailure): void {
    if (this.#kept !== undefined) {
      // The head already told what there is to know.
      this.#finish({ kind: 'refused', answer: this.#kept.cut() });
      return;
    }
    if (!this.#exchange.client.committed) {
      this.#finish({ kind: 'failed', failure });
      return;
    }
    this.#exchange.brokenBy = failure.cause;
    this.#exchange.client.breakOff(failure.error.code, failure.error.message);
    this.#finish({ kind: 'broken', failure });
  }

  readonly #resume = (): void => this.#call.resume();

  readonly #leave = (): void => {
    this.#call.abort();
    this.#finish({ kind: 'client-left' });
  };

  #finish(end: AttemptEnd): void {
    this.#exchange.signal.removeEventListener('abort', this.#leave);
    this.#resolve(end);
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
      return { kind: 'refused', answer: end.answer, instances };
    case 'failed':
      return { kind: 'failed', code: end.failure.error.code, cause: end.failure.cause, instances };
  }
}
