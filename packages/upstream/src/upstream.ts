import type {
  ProxySettings,
  ResponseSink,
  UpstreamCall,
  UpstreamClient,
  UpstreamLimits,
  UpstreamRequest,
} from './call.ts';
import { PlainClient } from './plain-client.ts';
import { UndiciClient } from './undici-client.ts';

/**
 * The connections of one process to engines and endpoints, kept alive and shared by all its calls.
 */
export class Upstream implements UpstreamClient {
  readonly #plain: PlainClient;
  readonly #undici: UndiciClient;
  readonly #proxied: UndiciClient | null;
  readonly idleTimeoutMs: number;

  /**
   * @param options.withheld lower-case names of headers that are removed from every upstream's answer
   * @param options.proxies for requests that are `outside`; null: all are called directly
   */
  constructor(
    limits: UpstreamLimits,
    { withheld = [], proxies = null }: { withheld?: readonly string[]; proxies?: ProxySettings | null } = {},
  ) {
    this.#proxied = proxies === null ? null : new UndiciClient(limits, withheld, proxies);
    this.#plain = new PlainClient(limits, withheld);
    this.#undici = new UndiciClient(limits, withheld);
    this.idleTimeoutMs = limits.upstreamIdleTimeoutMs;
  }

  /** `http://` goes over our own client, all else, and what may go through a proxy, over undici. */
  call(request: UpstreamRequest, sink: ResponseSink): UpstreamCall {
    return this.#clientFor(request).call(request, sink);
  }

  /** Whether the body of such a request is read again until its answer is over. */
  keepsBody(request: UpstreamRequest): boolean {
    return this.#clientFor(request) !== this.#plain;
  }

  #clientFor({ origin, outside }: UpstreamRequest): UpstreamClient {
    if (outside === true && this.#proxied !== null) return this.#proxied;
    return origin.startsWith('http://') ? this.#plain : this.#undici;
  }

  /** Closes every connection; calls under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#plain, this.#undici, this.#proxied].map((client) => client?.[Symbol.asyncDispose]()));
  }
}
