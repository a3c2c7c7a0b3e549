import { type Ask, type Decision, GatewayError, isAsk, type RouteQuery, type RouteReply } from '@llm-gateway/protocol';
import type { DecideContext, Fleet, RouteTable } from '@llm-gateway/routing';
import type { Observer } from './observer.ts';

/** Answers batches of asks for one router. */
export class Responder {
  readonly #router: string;
  readonly #fleet: Fleet;
  readonly #table: RouteTable;
  readonly #observer: Observer;
  /** One count for all ingresses: all that they and `Fleet` need of it is that it grows. */
  #sequence = 0;

  constructor(router: string, parts: { fleet: Fleet; table: RouteTable; observer: Observer }) {
    this.#router = router;
    this.#fleet = parts.fleet;
    this.#table = parts.table;
    this.#observer = parts.observer;
  }

  /** `clock` in monotonic milliseconds, `random` in [0, 1). */
  answer({ ingress, generation, asks }: RouteQuery, clock: () => number, random: () => number): RouteReply {
    this.#sequence += 1;
    const reply = { router: this.#router, sequence: this.#sequence, generation: this.#table.generation };
    if (generation !== this.#table.generation) {
      // Indices of another config mean other endpoints; the ingress decides itself.
      this.#observer.generationMismatch(ingress, generation);
      return { ...reply, decisions: [] };
    }
    const now = clock();
    const context: DecideContext = { now, random, reply: { ingress, sequence: this.#sequence } };
    const decisions = asks.map((ask) => this.#decide(ask, context));
    this.#observer.batch(decisions, clock() - now);
    return { ...reply, decisions };
  }

  /** One bad ask never fails its batch. */
  #decide(ask: Ask, context: DecideContext): Decision {
    try {
      if (!isAsk(ask)) throw new GatewayError('invalid_message', 'an ask does not fit its schema');
      return this.#fleet.decide(this.#table, ask, context);
    } catch (error) {
      this.#observer.askFailed(error, context.now);
      return { route: 'failed' };
    }
  }
}
