import { type DecideContext, type Fleet, leaseMs } from '@llm-gateway/fleet';
import {
  type Ask,
  type Decision,
  type ExplainQuery,
  type ExplainReply,
  GatewayError,
  type InstanceAddress,
  isAsk,
  type LeaseQuery,
  type LeaseReply,
  type RouteQuery,
  type RouteReply,
} from '@llm-gateway/protocol';
import { explainRoute, type HeldTables, type RouteTable } from '@llm-gateway/routing';
import type { Observer } from './observer.ts';

/** An explanation is read by people: beyond so much it is cut, and says so. */
const maxWays = 20;
const maxFallbacks = 8;
const maxUrl = 200;
const maxPoolBytes = 48 * 1024;

/** Answers batches of asks, and asks for picks in advance, for one router. */
export class Responder {
  readonly #router: string;
  readonly #policy: string;
  readonly #fleet: Fleet;
  readonly #tables: HeldTables;
  readonly #observer: Observer;
  /** One count for all ingresses: all that they and `Fleet` need of it is that it grows. */
  #sequence = 0;

  /** @param parts.policy how the fleet chooses, for people */
  constructor(router: string, parts: { fleet: Fleet; policy: string; tables: HeldTables; observer: Observer }) {
    this.#router = router;
    this.#policy = parts.policy;
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

  /** Where a request would go now by the newest config. `now` in monotonic milliseconds. */
  explain(query: ExplainQuery, now: number): ExplainReply {
    const table = this.#tables.newest;
    const ways = explainRoute(table, query.model, query.path);
    const local = ways.find(({ to }) => to === 'internal');
    const { prompt, excluded = [], max } = query;
    const ask = { model: local?.upstreamModel ?? query.model, excluded, ...(prompt && { prompt }) };
    const pools = local === undefined ? [] : this.#fleet.explain(ask, { now, max });
    const bounded = ways.slice(0, maxWays).map(({ row, to, share, why, upstreamModel, fallbacks }) => ({
      ...{ row, to: to.slice(0, maxUrl), share, why: why.slice(0, maxUrl) },
      ...(upstreamModel !== undefined && { upstreamModel }),
      fallbacks: fallbacks.slice(0, maxFallbacks).map((url) => url.slice(0, maxUrl)),
    }));
    return {
      router: this.#router,
      generation: table.generation,
      policy: this.#policy,
      ways: bounded,
      moreWays: ways.length - bounded.length,
      pools: pools.map((pool) => ({ ...pool, candidates: fitting(pool.candidates, maxPoolBytes / pools.length) })),
    };
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

/** The first of them that have at most so many bytes as JSON. */
function fitting<T>(items: readonly T[], maxBytes: number): T[] {
  let bytes = 0;
  return items.filter((item) => {
    bytes += Buffer.byteLength(JSON.stringify(item));
    return bytes <= maxBytes;
  });
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
