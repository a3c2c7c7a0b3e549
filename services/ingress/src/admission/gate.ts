import { GatewayError } from '@llm-gateway/protocol';
import type { ClientResponse } from '../http/client-response.ts';

/** Counts the requests in progress, and refuses further ones at its limit and once it is closed. */
export class Gate {
  readonly #limit: number;
  inside = 0;
  /** The process is shutting down: only requests that were promised are still admitted. */
  closed = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Lets a request in until its answer is over: a slow client still takes the end of its answer
   * when the work is done.
   * @param options.isPromised whether the client was allowed to send this request by the answer
   * before it Throws `GatewayError` `draining` or `overloaded`.
   */
  enter(client: ClientResponse, { isPromised }: { isPromised: boolean }): void {
    if (this.closed && !isPromised) throw new GatewayError('draining', 'this gateway is shutting down');
    if (this.inside >= this.#limit) {
      throw new GatewayError('overloaded', 'the gateway is at its limit of concurrent requests');
    }
    this.inside++;
    client.whenOver(() => {
      this.inside--;
    });
  }
}
