import { type Announcer, announce, type Bus, type RespondContext, type Subscription } from '@llm-gateway/bus';
import type { Caches, Fleet } from '@llm-gateway/fleet';
import {
  configHeld,
  prefixList,
  type RouteQuery,
  type RouteReply,
  routeDecide,
  routeExplain,
  routeLease,
  routerBeat,
} from '@llm-gateway/protocol';
import type { HeldTables } from '@llm-gateway/routing';
import { names, type Tracing } from '@llm-gateway/tracing';
import type { Log } from './observer.ts';
import type { Responder } from './responder.ts';
import { takeOverCaches } from './warm-start.ts';

interface AnsweringParts {
  /** Names this process on the bus. */
  readonly router: string;
  readonly bus: Bus;
  readonly log: Log;
  readonly responder: Responder;
  readonly tables: HeldTables;
  readonly fleet: Fleet;
  /** Undefined under policies that need to know nothing of caches. */
  readonly caches: Caches | undefined;
  /** Null: no traces. */
  readonly tracing: Tracing | null;
}

const now = () => performance.now();

/**
 * From when on a router is asked, and for what: it joins the groups of its subjects, and announces
 * itself and the route configs that it has.
 */
export class Answering implements Disposable {
  readonly #parts: AnsweringParts;
  readonly #open = new DisposableStack();
  /**
   * While routers hold different configs, ingresses ask those that hold theirs, by a subject of
   * each generation.
   */
  readonly #groups: Groups;
  readonly #announcers: Announcer[] = [];
  readonly #stopped = new AbortController();
  #warming: Promise<void> | undefined;
  #begun = false;

  constructor(parts: AnsweringParts) {
    this.#parts = parts;
    const { bus } = parts;
    this.#groups = this.#open.use(
      new Groups((owner) => bus.respond(routeDecide, (query, context) => this.#answer(query, context), { owner })),
    );
  }

  get begun(): boolean {
    return this.#begun;
  }

  /**
   * Begins once it knows what another router knows: whoever owns a pool has to, from its first beat
   * on.
   */
  async warmUp(): Promise<void> {
    const { bus, caches } = this.#parts;
    if (caches !== undefined) {
      this.#warming ??= takeOverCaches(bus, caches, this.#stopped.signal);
      await this.#warming;
    }
    this.begin();
  }

  /** Is asked from now on. Only the first call does anything. */
  begin(): void {
    if (this.#begun || this.#stopped.signal.aborted) return;
    this.#begun = true;
    const { router, log, tables, fleet } = this.#parts;
    this.#respond();
    this.#announce();
    log.info({ router, generation: tables.newest.generation, instances: fleet.instances().length }, 'answering');
  }

  /** Other configs are held. */
  changed(): void {
    if (!this.#begun) return;
    // Subscribe first, then announce it.
    this.#groups.are(this.#parts.tables.generations);
    for (const announcer of this.#announcers) announcer.now();
  }

  /** Others are asked from now on; what is on its way here is still answered. */
  leave(): void {
    this.#stopped.abort();
    const { router, bus, tables } = this.#parts;
    if (this.#begun) bus.publish(routerBeat, { router, generation: tables.newest.generation, leaving: true });
  }

  [Symbol.dispose](): void {
    this.#open.dispose();
  }

  #respond(): void {
    const { router, bus, responder, tables, caches } = this.#parts;
    // The plain subject, and its own for the pools that it owns.
    for (const owner of [undefined, router]) {
      this.#open.use(bus.respond(routeDecide, (query, context) => this.#answer(query, context), { owner }));
      this.#open.use(bus.respond(routeExplain, (query) => responder.explain(query, now()), { owner }));
    }
    this.#groups.are(tables.generations);
    this.#open.use(bus.respond(routeLease, (query) => responder.lease(query, now()), { owner: router }));
    if (caches === undefined) return;
    for (const owner of [undefined, router]) {
      this.#open.use(bus.respond(prefixList, (query) => ({ router, ...caches.page(query) }), { owner }));
    }
  }

  #announce(): void {
    const { router, bus, tables } = this.#parts;
    this.#announcers.push(
      this.#open.use(
        announce(bus, configHeld, () => ({
          process: router,
          service: 'router',
          generations: [...tables.generations],
          active: tables.newest.generation,
        })),
      ),
      this.#open.use(announce(bus, routerBeat, () => ({ router, generation: tables.newest.generation }))),
    );
  }

  #answer(query: RouteQuery, { traces }: RespondContext): RouteReply {
    const { router, responder, tracing } = this.#parts;
    const startedAtMs = now();
    const reply = responder.answer(query, now, Math.random);
    if (tracing !== null) traceDecisions(tracing, { traces, startedAtMs, router, batch: query.asks.length });
    return reply;
  }
}

/** The router's own step of each request that is traced: one message answers for all of them. */
function traceDecisions(
  tracing: Tracing,
  told: {
    readonly traces: readonly string[];
    readonly startedAtMs: number;
    readonly router: string;
    readonly batch: number;
  },
): void {
  const { traces, startedAtMs, router, batch } = told;
  const attributes = { [names.router]: router, [names.batch]: batch };
  for (const parent of traces) {
    const trace = tracing.follow('route', { kind: 'server', parent, startedAtMs, attributes });
    if (trace !== null) tracing.end(trace);
  }
}

/** The subjects of the generations that are held. */
class Groups implements Disposable {
  readonly #join: (generation: string) => Subscription;
  readonly #joined = new Map<string, Subscription>();

  constructor(join: (generation: string) => Subscription) {
    this.#join = join;
  }

  are(generations: readonly string[]): void {
    for (const generation of generations) {
      if (!this.#joined.has(generation)) this.#joined.set(generation, this.#join(generation));
    }
    for (const [generation, subscription] of this.#joined) {
      if (generations.includes(generation)) continue;
      subscription.close();
      this.#joined.delete(generation);
    }
  }

  [Symbol.dispose](): void {
    this.are([]);
  }
}
