import { type DecideContext, type Fleet, leaseMs } from '@llm-gateway/fleet';
import {
  type Ask,
  type Decision,
  GatewayError,
  type InstanceAddress,
  isAsk,
  type LeaseQuery,
  type LeaseReply,
  type RouteQuery,
  type RouteReply,
} from '@llm-gateway/protocol';
import type { HeldTables, RouteTable } from '@llm-gateway/routing';
import type { Observer } from './observer.ts';

/** Answers batches of asks, and asks for picks in advance, for one router. */
export class Responder {
  readonly #router: string;
  readonly #fleet: Fleet;
  readonly #tables: HeldTables;
  readonly #observer: Observer;
  /** One count for all ingresses: all that they and `Fleet` need of it is that it grows. */
  #sequence = 0;

  constructor(router: string, parts: { fleet: Fleet; tables: HeldTables; observer: Observer }) {
    this.#router = router;
    this.#fleet = parts.fleet;
    this.#tables = parts.tables;
    this.#observer = parts.observer;
  }

  /** `clock` in monotonic milliseconds, `random` in [0, 1). */
  answer({ ingress, generation, asks }: RouteQuery, clock: () => number, random: () => number): RouteReply {
    const now = clock();
    const table = this.#tables.find(generation, now);
    const reply = this.#reply(table);
    // Indices of another config mean other endpoints; the ingress decides itself.
    if (table === undefined) {
      this.#observer.generationMismatch(ingress, generation);
      return { ...reply, decisions: [] };
    }
    const context: DecideContext = { now, random, reply: { ingress, sequence: reply.sequence } };
    const decisions = asks.map((ask) => this.#decide(table, ask, context));
    this.#observer.batch(decisions, clock() - now);
    return { ...reply, decisions };
  }

  /** `now` in monotonic milliseconds. */
  lease({ ingress, generation, pools }: LeaseQuery, now: number): LeaseReply {
    const table = this.#tables.find(generation, now);
    const reply = { ...this.#reply(table), validMs: leaseMs };
    if (table === undefined) {
      this.#observer.generationMismatch(ingress, generation);
      return { ...reply, leases: [] };
    }
    const context = { now, reply: { ingress, sequence: reply.sequence } };
    const leases = pools.map((pool) => {
      const picks = this.#fleet.lease(pool, context);
      this.#observer.leased(picks.length);
      return indexed(picks);
    });
    return { ...reply, leases };
  }

  /** @param table by which is answered; undefined: it is not held, and the newest is named */
  #reply(table: RouteTable | undefined) {
    this.#sequence += 1;
    const { generation } = table ?? this.#tables.newest;
    return { router: this.#router, sequence: this.#sequence, generation };
  }

  /** One bad ask never fails its batch. */
  #decide(table: RouteTable, ask: Ask, context: DecideContext): Decision {
    try {
      if (!isAsk(ask)) throw new GatewayError('invalid_message', 'an ask does not fit its schema');
      return this.#fleet.decide(table, ask, context);
    } catch (error) {
      this.#observer.askFailed(error, context.now);
      return { route: 'failed' };
    }
  }
}

/** Each address once, and where it occurs. */
function indexed(addresses: readonly InstanceAddress[]): LeaseReply['leases'][number] {
  const places = new Map<InstanceAddress, number>();
  const picks = addresses.map((address) => {
    const place = places.get(address) ?? places.size;
    places.set(address, place);
    return place;
  });
  return { instances: [...places.keys()], picks };
}
