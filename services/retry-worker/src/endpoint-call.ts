import { countsAsFailed } from '@llm-gateway/routing';
import {
  type FailureCause,
  KeptAnswer,
  type ResponseHead,
  type ResponseSink,
  type Upstream,
  type UpstreamCall,
  type UpstreamFailure,
  type UpstreamRequest,
  type WholeResponse,
} from '@llm-gateway/upstream';
import type { JobAnswer } from './job-answer.ts';

/** How one call of an endpoint ended. */
export type CallEnd =
  /** The ingress has the whole answer. */
  | { readonly kind: 'answered' }
  /** Nothing was relayed; the endpoint's failed answer is kept. */
  | { readonly kind: 'refused'; readonly answer: WholeResponse }
  /** Nothing was relayed; there was no whole answer. */
  | { readonly kind: 'failed'; readonly cause: FailureCause }
  /** The answer broke after part of it was relayed. */
  | { readonly kind: 'broken'; readonly cause: FailureCause }
  | { readonly kind: 'left' };

export interface CallContext {
  readonly upstream: Upstream;
  readonly answer: JobAnswer;
  /** See `countsAsFailed`. */
  readonly ourKey: boolean;
  /** Calls of the job, this one included. */
  readonly calls: number;
  /** Aborts when the ingress leaves. */
  readonly signal: AbortSignal;
}

/** Calls the endpoint once. An answer that counts as failed is kept back; any other is relayed as it arrives. */
export function callEndpoint(request: UpstreamRequest, context: CallContext): Promise<CallEnd> {
  return new Promise((resolve) => {
    new EndpointCall(request, context, resolve);
  });
}

class EndpointCall implements ResponseSink {
  readonly #context: CallContext;
  readonly #resolve: (end: CallEnd) => void;
  readonly #call: UpstreamCall;
  /** The answer that is kept back; undefined while relaying. */
  #kept: KeptAnswer | undefined;

  constructor(request: UpstreamRequest, context: CallContext, resolve: (end: CallEnd) => void) {
    this.#context = context;
    this.#resolve = resolve;
    this.#call = context.upstream.call(request, this);
    if (context.signal.aborted) this.#leave();
    else context.signal.addEventListener('abort', this.#leave);
  }

  onHead(head: ResponseHead): void {
    const { answer, ourKey, calls } = this.#context;
    if (countsAsFailed(head.status, ourKey)) this.#kept = new KeptAnswer(head);
    else answer.prepare(head, { end: 'answered', calls, failure: null });
  }

  onData(chunk: Buffer): boolean {
    if (this.#kept === undefined) return this.#context.answer.write(chunk, this.#resume);
    this.#kept.take(chunk);
    return true;
  }

  onEnd(): void {
    if (this.#kept !== undefined) {
      this.#finish({ kind: 'refused', answer: this.#kept.whole() });
      return;
    }
    this.#context.answer.end();
    this.#finish({ kind: 'answered' });
  }

  onFailure({ cause }: UpstreamFailure): void {
    if (this.#kept !== undefined) {
      this.#finish({ kind: 'refused', answer: this.#kept.cut() });
    } else if (this.#context.answer.committed) {
      this.#context.answer.breakOff();
      this.#finish({ kind: 'broken', cause });
    } else {
      this.#finish({ kind: 'failed', cause });
    }
  }

  readonly #resume = (): void => this.#call.resume();

  readonly #leave = (): void => {
    this.#call.abort();
    this.#finish({ kind: 'left' });
  };

  #finish(end: CallEnd): void {
    this.#context.signal.removeEventListener('abort', this.#leave);
    this.#resolve(end);
  }
}
