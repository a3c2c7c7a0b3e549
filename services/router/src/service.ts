import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { announce, type Bus } from '@llm-gateway/bus';
import { fleetMode, startFleet } from '@llm-gateway/fleet';
import { routeDecide, routeLease, routerBeat } from '@llm-gateway/protocol';
import { type RouteTable, routeTable } from '@llm-gateway/routing';
import type { Metrics, Running } from '@llm-gateway/runtime';
import { declareFleetGauges, type Log, Observer } from './observer.ts';
import type { Options } from './options.ts';
import { Responder } from './responder.ts';

const now = () => performance.now();

/** What a router needs to know of its flags; those of the bus are for whoever makes it. */
type RouterOptions = Pick<
  Options,
  'routePolicy' | 'routeConfig' | 'pdDisaggProtocol' | 'separatePdScheduling' | 'schedulingPolicy' | 'slowStartMs'
>;

/** What of a process a router uses; `Parts` of the runtime fit. */
interface Deps {
  readonly bus: Bus;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * A router: answers batches of asks. It joins the queue group when it has a list of instances, or at once when no request can need one: before
 * that it would answer "none" where another router, or the ingress itself, knows better. It is ready while it can answer, and in P/D modes while
 * a complete pair exists; it answers regardless of the latter. Whoever made the bus closes it.
 */
export async function start(values: RouterOptions, { bus, log, metrics }: Deps): Promise<Running> {
  const router = `router-${randomUUID().slice(0, 8)}`;
  const table = routeTable(
    values,
    (path) => readFileSync(path, 'utf8'),
    (line) => log.warn(line),
  );
  const mode = fleetMode(values);
  const observer = new Observer(log, metrics);
  const open = new DisposableStack();
  let answering = false;
  const { fleet } = open.use(
    startFleet(bus, values, {
      policy: values.schedulingPolicy,
      self: router,
      slowStartMs: values.slowStartMs,
      hearsIngresses: true,
      onKvAddressMissing: (instance) => observer.kvAddressMissing(instance),
      onEject: (ejection) => observer.ejected(ejection),
      onList: () => answerFromNowOn(),
    }),
  );
  declareFleetGauges(metrics, fleet);

  const responder = new Responder(router, { fleet, table, observer });
  const answerFromNowOn = (): void => {
    if (answering) return;
    answering = true;
    open.use(bus.respond(routeDecide, (query) => responder.answer(query, now, Math.random)));
    open.use(bus.respond(routeLease, (query) => responder.lease(query, now()), { owner: router }));
    open.use(announce(bus, routerBeat, () => ({ router, generation: table.generation })));
    log.info({ router, generation: table.generation, instances: fleet.instances().length }, 'answering');
  };

  if (!needsInstances(table)) answerFromNowOn();

  return {
    addresses: {},
    ready: () =>
      bus.connected && answering && (mode === 'neutral' || !needsInstances(table) || fleet.hasCompletePair()),
    async [Symbol.asyncDispose]() {
      open.dispose();
    },
  };
}

/** Whether some request may go to an instance of discovery. */
function needsInstances(table: RouteTable): boolean {
  return table.policy === 'off' || table.endpoints.some((endpoint) => endpoint.local);
}
