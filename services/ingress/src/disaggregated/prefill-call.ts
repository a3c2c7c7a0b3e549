import { GatewayError } from '@llm-gateway/protocol';
import { type RelayEnd, type RelayTarget, type ResponseHead, relay, type UpstreamRequest } from '@llm-gateway/upstream';
import type { Exchange } from '../exchange.ts';
import type { InternalContext } from '../instance-leg.ts';

/**
 * How a prefill's call ended. `done`: the prompt is computed; `body` is null when nothing was wanted of it, or when it was too large to be kept.
 * `refused` is an answer of any other status: a client's own mistake or a failure.
 */
export type PrefillEnd =
  | { readonly kind: 'done'; readonly body: Buffer | null }
  | Extract<RelayEnd, { kind: 'refused' } | { kind: 'failed' }>;

/** A prefill's answer is one token and where its cache lies, but a client may ask for the log probabilities of its whole prompt. */
const maxKeptBytes = 16 * 1024 * 1024;

/**
 * Calls a prefill instance and reads its answer to the end, which is when the decode may begin; of a body that is not kept, too.
 * Throws `GatewayError` `client_closed` when the client leaves.
 * @param wanted whether a body of the answer is wanted
 */
export async function callPrefill(
  request: UpstreamRequest,
  wanted: boolean,
  { exchange, gateway }: InternalContext,
): Promise<PrefillEnd> {
  const reading = new PrefillReading(wanted, exchange);
  const end = await relay(gateway.upstream, { ...request, once: exchange.repeated }, reading);
  switch (end.kind) {
    case 'relayed':
      return { kind: 'done', body: reading.body };
    case 'client-left':
      throw new GatewayError('client_closed', 'the client left');
    case 'broken':
      return { kind: 'failed', failure: end.failure };
    default:
      return end;
  }
}

/** Takes the answer of a prefill that is done; any other is left to be kept back. */
class PrefillReading implements RelayTarget {
  /** The client gets nothing of it. */
  readonly committed = false;
  readonly #exchange: Exchange;
  /** Null when it is not wanted or has grown too large. */
  #chunks: Buffer[] | null;
  #bytes = 0;

  constructor(wanted: boolean, exchange: Exchange) {
    this.#exchange = exchange;
    this.#chunks = wanted ? [] : null;
  }

  get signal(): AbortSignal {
    return this.#exchange.signal;
  }

  get body(): Buffer | null {
    return this.#chunks && Buffer.concat(this.#chunks);
  }

  accept({ status }: ResponseHead): boolean {
    return status >= 200 && status <= 299;
  }

  write(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#bytes > maxKeptBytes) this.#chunks = null;
    else this.#chunks?.push(chunk);
    return true;
  }

  end(): void {}

  breakOff(): void {}

  onRepeat(): void {
    this.#exchange.repeated = true;
  }
}
