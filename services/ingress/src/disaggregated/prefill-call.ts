import { GatewayError } from '@llm-gateway/protocol';
import { countsAsFailed } from '@llm-gateway/routing';
import {
  KeptAnswer,
  type ResponseHead,
  type ResponseSink,
  type Upstream,
  type UpstreamCall,
  type UpstreamFailure,
  type UpstreamRequest,
} from '@llm-gateway/upstream';
import type { AttemptEnd } from '../attempt.ts';

/**
 * How a prefill's call ended. `done`: the prompt is computed; `body` is null when nothing was wanted of it, or when it was too large to be kept.
 * `refused` is an answer of any other status: a client's own mistake or a failure.
 */
export type PrefillEnd =
  | { readonly kind: 'done'; readonly body: Buffer | null }
  | Extract<AttemptEnd, { kind: 'refused' } | { kind: 'failed' }>;

/** A prefill's answer is one token and where its cache lies, but a client may ask for the log probabilities of its whole prompt. */
const maxKeptBytes = 16 * 1024 * 1024;

interface PrefillOptions {
  /** Whether a body of the answer is wanted. */
  readonly wanted: boolean;
  readonly signal: AbortSignal;
}

/**
 * Calls a prefill instance and reads its answer to the end, which is when the decode may begin; of a body that is not kept, too.
 * Throws `GatewayError` `client_closed` when `signal` aborts.
 */
export function callPrefill(
  upstream: Upstream,
  request: UpstreamRequest,
  { wanted, signal }: PrefillOptions,
): Promise<PrefillEnd> {
  return new Promise((resolve, reject) => {
    const left = () => reject(new GatewayError('client_closed', 'the client left'));
    if (signal.aborted) {
      left();
      return;
    }
    const onAbort = () => {
      call.abort();
      left();
    };
    const reading = new PrefillReading(wanted, (end) => {
      signal.removeEventListener('abort', onAbort);
      resolve(end);
    });
    const call: UpstreamCall = upstream.call(request, reading);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

class PrefillReading implements ResponseSink {
  readonly #wanted: boolean;
  readonly #finish: (end: PrefillEnd) => void;
  #head: ResponseHead = { status: 0, headers: [] };
  /** Set when the answer counts as failed. */
  #failed: KeptAnswer | undefined;
  /** Null when it is not wanted or has grown too large. */
  #chunks: Buffer[] | null = [];
  #bytes = 0;

  constructor(wanted: boolean, finish: (end: PrefillEnd) => void) {
    this.#wanted = wanted;
    this.#finish = finish;
  }

  onHead(head: ResponseHead): void {
    this.#head = head;
    if (countsAsFailed(head.status, false)) this.#failed = new KeptAnswer(head);
    if (this.#done && !this.#wanted) this.#chunks = null;
  }

  onData(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#failed !== undefined) this.#failed.take(chunk);
    else if (this.#bytes > maxKeptBytes) this.#chunks = null;
    else this.#chunks?.push(chunk);
    return true;
  }

  onEnd(): void {
    const body = this.#chunks && Buffer.concat(this.#chunks);
    if (this.#done) this.#finish({ kind: 'done', body });
    else if (this.#failed !== undefined) this.#finish({ kind: 'refused', answer: this.#failed.whole() });
    else if (body === null) this.#finish({ kind: 'refused', answer: this.#withoutBody() });
    else this.#finish({ kind: 'refused', answer: { ...this.#head, body } });
  }

  onFailure(failure: UpstreamFailure): void {
    // A head that says no already told what there is to know.
    if (this.#head.status === 0 || this.#done) this.#finish({ kind: 'failed', failure });
    else this.#finish({ kind: 'refused', answer: this.#withoutBody() });
  }

  get #done(): boolean {
    return this.#head.status >= 200 && this.#head.status <= 299;
  }

  #withoutBody() {
    return new KeptAnswer(this.#head).cut();
  }
}
