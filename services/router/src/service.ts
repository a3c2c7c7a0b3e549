import { randomUUID } from 'node:crypto';
import { type Bus, tellStatus } from '@llm-gateway/bus';
import { Caches, type Fleet, fleetMode, startFleet } from '@llm-gateway/fleet';
import { maxHeldGenerations, prefixPlaced } from '@llm-gateway/protocol';
import { followRoutes } from '@llm-gateway/route-config';
import { HeldTables } from '@llm-gateway/routing';
import type { Describe, Metrics, Parts, Running } from '@llm-gateway/runtime';
import type { Tracing } from '@llm-gateway/tracing';
import { Answering } from './answering.ts';
import { declareCacheGauges, declareFleetGauges, type Log, Observer } from './observer.ts';
import type { Options } from './options.ts';
import { placementOutbox } from './placements.ts';
import { Responder } from './responder.ts';

const now = () => performance.now();
/** Maximum unhealthy instances in a status report. */
const maxUnwell = 500;

/** The options that a router reads; its caller creates the bus. */
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

/** What every step of the wiring has. */
interface Wiring {
  /** Names this process on the bus. */
  readonly router: string;
  readonly values: RouterOptions;
  readonly deps: Deps;
  /** Disposed in reverse of the order in which they were used. */
  readonly open: DisposableStack;
  readonly observer: Observer;
}

/**
 * A router: answers batches of asks. It joins the queue group when it has a list of instances, or
 * at once when no request can need one: before that it would answer "none" where another router, or
 * the ingress itself, knows better. It is ready while it can answer, and in P/D modes while a
 * complete pair exists; it answers regardless of the latter. Whoever made the bus closes it.
 */
export async function start(values: RouterOptions, deps: Deps): Promise<Running> {
  const { bus, log, metrics, tracing = null } = deps;
  const router = `router-${randomUUID().slice(0, 8)}`;
  const open = new DisposableStack();
  const wiring: Wiring = { router, values, deps, open, observer: new Observer(log, metrics) };
  const { observer } = wiring;
  const tables: HeldTables = followTables(wiring, () => answering.changed());
  const caches = values.schedulingPolicy === 'cache-aware' ? makeCaches(wiring) : undefined;
  const fleet = followFleet(wiring, { caches, onList: () => void answering.warmUp() });
  declareFleetGauges(metrics, fleet);
  const responder = new Responder(router, { fleet, policy: values.schedulingPolicy, tables, observer });
  const answering: Answering = open.use(new Answering({ router, bus, log, responder, tables, fleet, caches, tracing }));
  if (caches !== undefined) followCaches(wiring, caches);
  if (!tables.needsInstances) answering.begin();
  reportStatus(wiring, fleet, tables);
  const hasPair = () => fleetMode(values) === 'neutral' || !tables.needsInstances || fleet.hasCompletePair();
  return {
    addresses: {},
    ready: () => bus.connected && answering.begun && hasPair(),
    async [Symbol.asyncDispose]() {
      answering.leave();
      open.dispose();
    },
  };
}

function followTables({ values, deps, open }: Wiring, onChange: () => void): HeldTables {
  const { log, metrics, hide, options } = deps;
  const followed = open.use(
    followRoutes(values, {
      log,
      metrics,
      ...(hide && { hide }),
      ...(options && { options }),
      onChange(table) {
        tables.take(table, now());
        onChange();
      },
    }),
  );
  const tables = new HeldTables(followed.first, { maxHeld: maxHeldGenerations });
  return tables;
}

/** What is known of the caches of instances; what this router adds goes to the others. */
function makeCaches({ router, values, deps: { bus }, open, observer }: Wiring): Caches {
  const placements = open.use(placementOutbox(bus, router, () => observer.placementDropped()));
  return new Caches({
    ...(values.instanceKvBytes > 0 && { capacityBytes: values.instanceKvBytes }),
    onPlaced: (instance, fingerprints) => placements.add({ instance, fingerprints }),
    onLost: (instance) => observer.cacheLost(instance),
  });
}

function followFleet(
  { router, values, deps: { bus }, open, observer }: Wiring,
  { caches, onList }: { caches: Caches | undefined; onList: () => void },
): Fleet {
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
      onList,
    }),
  );
  return fleet;
}

/** Takes what other routers add. */
function followCaches({ router, deps: { bus, metrics }, open }: Wiring, caches: Caches): void {
  declareCacheGauges(metrics, caches);
  open.use(
    bus.subscribe(prefixPlaced, (message) => {
      if (message.router === router) return;
      for (const { instance, fingerprints } of message.placed) caches.placed(instance, fingerprints, now());
    }),
  );
}

/** Reports what this router knows to people who look. */
function reportStatus(
  { router, values, deps: { bus, describe }, open, observer }: Wiring,
  fleet: Fleet,
  tables: HeldTables,
): void {
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
}
