import { HeaderLines } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import { countsAsFailed } from '@llm-gateway/routing';
import {
  type CancelSignal,
  KeptAnswer,
  type RelayResult,
  type RelayTarget,
  type ResponseHead,
  relay,
  type UpstreamRequest,
} from '@llm-gateway/upstream';
import type { InternalContext } from '../calls/instance-leg.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { type AttemptRecord, recordedResult } from '../exchange/request-record.ts';

/**
 * How a prefill's call ended. `answered`: the prompt is computed; `body` is null when nothing was
 * wanted of it, or when it was too large to be kept. `rejected` is an answer of any other status: a
 * client's own mistake or a failure.
 */
export type PrefillResult =
  | { readonly kind: 'answered'; readonly body: Buffer | null }
  | Extract<RelayResult, { kind: 'rejected' } | { kind: 'failed' }>;

/**
 * A prefill's answer is one token and where its cache lies, but a client may ask for the log
 * probabilities of its whole prompt.
 */
const maxKeptBytes = 16 * 1024 * 1024;

/**
 * Calls a prefill instance and reads its answer to the end, which is when the decode may begin; of
 * a body that is not kept, too. Throws `GatewayError` `client_closed` when the client leaves.
 * @param options.wanted whether a body of the answer is wanted
 */
export async function callPrefill(
  request: UpstreamRequest,
  { target, wanted }: { target: string; wanted: boolean },
  { exchange, gateway }: InternalContext,
): Promise<PrefillResult> {
  const reading = new PrefillReading(wanted, exchange);
  const startedAtMs = performance.now();
  const call = { name: 'prefill', kind: 'internal', target, retry: exchange.attempts - 1 } as const;
  const traced = exchange.trace?.calling(request, call);
  const sent = traced?.request ?? request;
  const end = await relay(gateway.upstream, { ...sent, once: exchange.repeated }, reading);
  const record: AttemptRecord = {
    target,
    ...recordedResult(end),
    ms: performance.now() - startedAtMs,
    atMs: startedAtMs,
  };
  exchange.attemptEnded(record);
  if (traced !== undefined) exchange.trace?.called(traced.span, record);
  gateway.observer.attemptEnded('internal', record);
  switch (end.kind) {
    case 'answered':
      return reading.whole();
    case 'cancelled':
      throw new GatewayError('client_closed', 'the client left');
    case 'broken':
    case 'failed':
      return reading.cut() ?? { kind: 'failed', failure: end.failure };
    case 'rejected':
      return end;
  }
}

/**
 * Takes the answer of a prefill that is done, and a client's own mistake; one that counts as failed
 * is left to be kept back.
 */
class PrefillReading implements RelayTarget {
  /** The client gets nothing of it. */
  readonly committed = false;
  readonly #wanted: boolean;
  readonly #exchange: Exchange;
  #head: ResponseHead | undefined;
  /** Null when it is not wanted or has grown too large. */
  #chunks: Buffer[] | null = [];
  #bytes = 0;

  constructor(wanted: boolean, exchange: Exchange) {
    this.#wanted = wanted;
    this.#exchange = exchange;
  }

  get signal(): CancelSignal {
    return this.#exchange.signal;
  }

  accept(head: ResponseHead): boolean {
    if (countsAsFailed(head.status, false)) return false;
    this.#head = head;
    if (isDone(head) && !this.#wanted) this.#chunks = null;
    return true;
  }

  write(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#bytes > maxKeptBytes || !this.keep(chunk.length)) this.#chunks = null;
    // The chunk is only lent.
    else this.#chunks?.push(Buffer.from(chunk));
    return true;
  }

  /** Kept answers come out of the budget of bodies. */
  keep(bytes: number): boolean {
    return this.#exchange.memory.hold(bytes);
  }

  end(): void {}

  breakOff(): void {}

  /** The answer has come to its end. */
  whole(): PrefillResult {
    const head = this.#head ?? { status: 200, headers: HeaderLines.of([]) };
    const body = this.#chunks && Buffer.concat(this.#chunks);
    if (isDone(head)) return { kind: 'answered', body };
    return { kind: 'rejected', answer: body === null ? new KeptAnswer(head).cut() : { ...head, body } };
  }

  /**
   * The answer broke. A head that reports the client's mistake is sufficient;
   * undefined when there was none.
   */
  cut(): PrefillResult | undefined {
    if (this.#head === undefined || isDone(this.#head)) return undefined;
    return { kind: 'rejected', answer: new KeptAnswer(this.#head).cut() };
  }

  onRepeat(): void {
    this.#exchange.wroteTwice();
  }
}

function isDone({ status }: ResponseHead): boolean {
  return status >= 200 && status <= 299;
}
