import type { Server, ServerResponse } from 'node:http';
import { Server as NetServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { ErrorCode } from '@llm-gateway/protocol';
import { type Refused, refuse } from './refusal.ts';

/** Knows the requests inside, and lets no more in than it may: at its limit, and once it drains. */
export class Gate {
  readonly #limit: number;
  readonly #onRefused: (refused: Refused) => void;
  /** Those inside, each in a place of its own. A set would do but for the collector: what its outgrown tables still name would live on for long. */
  readonly #places: (ServerResponse | undefined)[] = [];
  readonly #free: number[] = [];
  inside = 0;
  closed = false;

  constructor(limit: number, onRefused: (refused: Refused) => void) {
    this.#limit = limit;
    this.#onRefused = onRefused;
  }

  pass(response: ServerResponse, work: () => Promise<void>): void {
    if (this.closed) {
      this.#turnAway(response, 'draining', 'this gateway is shutting down');
      return;
    }
    if (this.inside >= this.#limit) {
      this.#turnAway(response, 'overloaded', 'the gateway serves as many requests as it may');
      return;
    }
    const place = this.#free.pop() ?? this.#places.length;
    this.#places[place] = response;
    this.inside++;
    // Not when the work is done: a slow client still takes the end of its answer then.
    response.once('close', () => {
      this.#places[place] = undefined;
      this.#free.push(place);
      this.inside--;
    });
    void work();
  }

  #turnAway(response: ServerResponse, code: ErrorCode, message: string): void {
    const headers = { 'retry-after': '1', connection: 'close' };
    refuse({ request: response.req, response }, { code, message, headers }, this.#onRefused);
  }

  /** Lets nobody in, and waits until the last one is out. */
  async drain(server: Server, signal: AbortSignal): Promise<void> {
    this.closed = true;
    stopListening(server);
    while (this.inside > 0 && !signal.aborted) {
      // To Node a connection is idle as soon as its answer was handed over, however much of it the client has yet to take.
      if (!this.#places.some((response) => response?.writableEnded)) server.closeIdleConnections();
      await delay(drainPollMs);
    }
    server.closeIdleConnections();
  }
}

const drainPollMs = 50;

/** Takes no new connections. An HTTP server's own `close` would cut what it takes for idle connections. */
function stopListening(server: Server): void {
  NetServer.prototype.close.call(server);
}
