import type { ResponseSink, UpstreamCall, UpstreamClient, UpstreamLimits, UpstreamRequest } from './call.ts';
import { PlainClient } from './plain-client.ts';
import { UndiciClient } from './undici-client.ts';

/** The connections of one process to engines and endpoints, kept alive and shared by all its calls. */
export class Upstream implements UpstreamClient {
  readonly #plain: PlainClient;
  readonly #undici: UndiciClient;
  readonly idleTimeoutMs: number;

  /** @param withheld lower-case names of headers that no upstream's answer has for whoever gets it */
  constructor(limits: UpstreamLimits, withheld: readonly string[] = []) {
    this.#plain = new PlainClient(limits, withheld);
    this.#undici = new UndiciClient(limits, withheld);
    this.idleTimeoutMs = limits.upstreamIdleTimeoutMs;
  }

  /** `http://` goes over our own client, all else over undici. */
  call(request: UpstreamRequest, sink: ResponseSink): UpstreamCall {
    const client = request.origin.startsWith('http://') ? this.#plain : this.#undici;
    return client.call(request, sink);
  }

  /** Closes every connection; calls under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#plain[Symbol.asyncDispose](), this.#undici[Symbol.asyncDispose]()]);
  }
}
