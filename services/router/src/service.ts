import { randomUUID } from 'node:crypto';
import {
  type Announcer,
  announce,
  type Bus,
  type RespondContext,
  type Subscription,
  tellStatus,
} from '@llm-gateway/bus';
import { Caches, fleetMode, startFleet } from '@llm-gateway/fleet';
import {
  configHeld,
  maxHeldGenerations,
  prefixList,
  prefixPlaced,
  type RouteQuery,
  routeDecide,
  routeExplain,
  routeLease,
  routerBeat,
} from '@llm-gateway/protocol';
import { followRoutes } from '@llm-gateway/route-config';
import { HeldTables } from '@llm-gateway/routing';
import type { Describe, Metrics, Parts, Running } from '@llm-gateway/runtime';
import { names, type Tracing } from '@llm-gateway/tracing';
import { declareCacheGauges, declareFleetGauges, type Log, Observer } from './observer.ts';
import type { Options } from './options.ts';
import { placementOutbox } from './placements.ts';
import { Responder } from './responder.ts';
import { takeOverCaches } from './warm-start.ts';

const now = () => performance.now();
/** Maximum unhealthy instances in a status report. */
const maxUnwell = 500;

/** What a router needs to know of its flags; those of the bus are for whoever makes it. */
type RouterOptions = Pick<
  Options,
  | 'routePolicy'
  | 'routeConfig'
  | 'pdDisaggProtocol'
  | 'separatePdScheduling'
  | 'schedulingPolicy'
  | 'slowStartMs'
  | 'instanceKvBytes'
  | 'configRefreshIntervalMs'
>;

/** What of a process a router uses; `Parts` of the runtime fit. */
interface Deps {
  readonly bus: Bus;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly hide?: Parts['hide'];
  /** Null: no traces. */
  readonly tracing?: Tracing | null;
  readonly options?: Parts['options'];
  readonly describe: Describe;
}

/**
 * A router: answers batches of asks. It joins the queue group when it has a list of instances, or
 * at once when no request can need one: before that it would answer "none" where another router, or
 * the ingress itself, knows better. It is ready while it can answer, and in P/D modes while a
 * complete pair exists; it answers regardless of the latter. Whoever made the bus closes it.
 */
export async function start(
  values: RouterOptions,
  { bus, log, metrics, hide, describe, options, tracing = null }: Deps,
): Promise<Running> {
  const router = `router-${randomUUID().slice(0, 8)}`;
  const mode = fleetMode(values);
  const observer = new Observer(log, metrics);
  const open = new DisposableStack();
  const followed = open.use(
    followRoutes(values, {
      log,
      metrics,
      ...(hide && { hide }),
      ...(options && { options }),
      onChange(table) {
        tables.take(table, now());
        tell();
      },
    }),
  );
  const tables = new HeldTables(followed.first, { maxHeld: maxHeldGenerations });
  const stopped = new AbortController();
  let answering = false;
  const placements = open.use(placementOutbox(bus, router, () => observer.placementDropped()));
  const caches =
    values.schedulingPolicy === 'cache-aware'
      ? new Caches({
          ...(values.instanceKvBytes > 0 && { capacityBytes: values.instanceKvBytes }),
          onPlaced: (instance, fingerprints) => placements.add({ instance, fingerprints }),
          onLost: (instance) => observer.cacheLost(instance),
        })
      : undefined;
  const { fleet } = open.use(
    startFleet(bus, values, {
      policy: values.schedulingPolicy,
      self: router,
      slowStartMs: values.slowStartMs,
      hearsIngresses: true,
      ...(caches !== undefined && { caches }),
      onKvAddressMissing: (instance) => observer.kvAddressMissing(instance),
      onEngineReport: (result) => observer.engineReported(result),
      onEject: (ejection) => observer.ejected(ejection),
      onList: () => void warmUp(),
    }),
  );
  declareFleetGauges(metrics, fleet);

  const responder = new Responder(router, { fleet, policy: values.schedulingPolicy, tables, observer });
  const answer = (query: RouteQuery, { traces }: RespondContext) => {
    const startedAtMs = now();
    const reply = responder.answer(query, now, Math.random);
    if (tracing !== null) traceDecisions(tracing, { traces, startedAtMs, router, batch: query.asks.length });
    return reply;
  };
  /**
   * While routers hold different configs, ingresses ask those that hold theirs, by a subject of
   * each generation.
   */
  const groups = open.use(new Groups((owner) => bus.respond(routeDecide, answer, { owner })));
  const tellers: Announcer[] = [];
  const tell = (): void => {
    if (!answering) return;
    // Subscribe first, then announce it.
    groups.are(tables.generations);
    for (const teller of tellers) teller.now();
  };
  const answerFromNowOn = (): void => {
    if (answering || stopped.signal.aborted) return;
    answering = true;
    // The plain subject, and its own for the pools that it owns.
    for (const owner of [undefined, router]) {
      open.use(bus.respond(routeDecide, answer, { owner }));
      open.use(bus.respond(routeExplain, (query) => responder.explain(query, now()), { owner }));
    }
    groups.are(tables.generations);
    open.use(bus.respond(routeLease, (query) => responder.lease(query, now()), { owner: router }));
    if (caches !== undefined) {
      for (const owner of [undefined, router]) {
        open.use(bus.respond(prefixList, (query) => ({ router, ...caches.page(query) }), { owner }));
      }
    }
    tellers.push(
      open.use(
        announce(bus, configHeld, () => ({
          process: router,
          service: 'router',
          generations: [...tables.generations],
          active: tables.newest.generation,
        })),
      ),
      open.use(announce(bus, routerBeat, () => ({ router, generation: tables.newest.generation }))),
    );
    log.info({ router, generation: tables.newest.generation, instances: fleet.instances().length }, 'answering');
  };

  let warming: Promise<void> | undefined;
  /** Whoever owns a pool from its first beat on is to know what the one before knew. */
  const warmUp = async (): Promise<void> => {
    if (caches !== undefined) {
      warming ??= takeOverCaches(bus, caches, stopped.signal);
      await warming;
    }
    answerFromNowOn();
  };
  if (caches !== undefined) {
    declareCacheGauges(metrics, caches);
    open.use(
      bus.subscribe(prefixPlaced, (message) => {
        if (message.router === router) return;
        for (const { instance, fingerprints } of message.placed) caches.placed(instance, fingerprints, now());
      }),
    );
  }
  if (!tables.needsInstances) answerFromNowOn();
  open.use(
    tellStatus(bus, {
      process: router,
      service: 'router',
      describe,
      section: () => ({
        generation: tables.newest.generation,
        router: {
          instances: fleet.instances().length,
          mismatches: observer.mismatches,
          policy: values.schedulingPolicy,
          unwell: [...fleet.unwell(now(), maxUnwell)],
        },
      }),
    }),
  );

  return {
    addresses: {},
    ready: () =>
      bus.connected && answering && (mode === 'neutral' || !tables.needsInstances || fleet.hasCompletePair()),
    async [Symbol.asyncDispose]() {
      stopped.abort();
      // Others are asked from now on; what is on its way here is still answered.
      if (answering) bus.publish(routerBeat, { router, generation: tables.newest.generation, leaving: true });
      open.dispose();
    },
  };
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
