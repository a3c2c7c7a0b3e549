import type {
  FlatHeaders,
  ResponseHead,
  ResponseSink,
  UpstreamCall,
  UpstreamFailure,
  UpstreamRequest,
} from '@llm-gateway/upstream';
import { ownResponseHeaders } from './client-response.ts';
import type { Exchange } from './exchange.ts';
import { countsAsFailed, type Outcome, type StoredAnswer } from './failover.ts';
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
}

/** A failed upstream's body is kept up to here, to be given to the client if nothing better comes. */
const storedAnswerMaxBytes = 1024 * 1024;

/** Calls one upstream once. An answer that counts as failed is kept back; any other is relayed to the client as it arrives. */
export function attempt(request: UpstreamRequest, context: AttemptContext): Promise<AttemptEnd> {
  context.exchange.phase = 'calling';
  context.exchange.attempts++;
  return new Promise((resolve) => {
    new Attempt(request, context, resolve);
  });
}

class Attempt implements ResponseSink {
  readonly #context: AttemptContext;
  readonly #exchange: Exchange;
  readonly #resolve: (end: AttemptEnd) => void;
  readonly #call: UpstreamCall;
  #head: ResponseHead | undefined;
  /** The chunks of an answer that is kept back; undefined while relaying. */
  #kept: Buffer[] | undefined;
  #keptBytes = 0;

  constructor(request: UpstreamRequest, context: AttemptContext, resolve: (end: AttemptEnd) => void) {
    this.#context = context;
    this.#exchange = context.exchange;
    this.#resolve = resolve;
    this.#call = context.gateway.upstream.call(request, this);
    if (this.#exchange.signal.aborted) this.#leave();
    else this.#exchange.signal.addEventListener('abort', this.#leave);
  }

  onHead(head: ResponseHead): void {
    this.#head = head;
    const { ourKey, gateway } = this.#context;
    if (countsAsFailed(head.status, ourKey)) {
      this.#kept = [];
      return;
    }
    const own = this.#exchange.ownHeaders(gateway.exposeRouteHeaders);
    this.#exchange.client.prepare(head.status, withOwnHeaders(own, head.headers));
  }

  onData(chunk: Buffer): boolean {
    if (this.#kept === undefined) {
      this.#context.gateway.observer.chunk(this.#exchange);
      return this.#exchange.client.write(chunk, this.#resume);
    }
    this.#keptBytes += chunk.length;
    if (this.#keptBytes <= storedAnswerMaxBytes) this.#kept.push(chunk);
    return true;
  }

  onEnd(): void {
    const { status, headers } = this.#head as ResponseHead;
    if (this.#kept === undefined) {
      this.#exchange.client.end();
      this.#finish({ kind: 'relayed', status });
      return;
    }
    this.#finish({ kind: 'refused', answer: { status, headers, body: Buffer.concat(this.#kept) } });
  }

  onFailure(failure: UpstreamFailure): void {
    if (this.#kept !== undefined && this.#head !== undefined) {
      // The status already told what there is to know; a body cut short is not worth passing on.
      const { status } = this.#head;
      this.#finish({ kind: 'refused', answer: { status, headers: [], body: Buffer.alloc(0) } });
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
      return { kind: 'failed', code: end.failure.error.code, instances };
  }
}
