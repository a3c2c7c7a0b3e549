import { randomUUID } from 'node:crypto';
import { announce, type Bus, tellStatus } from '@llm-gateway/bus';
import { fleetMode, startFleet } from '@llm-gateway/fleet';
import { configHeld, GatewayError } from '@llm-gateway/protocol';
import { followRoutes } from '@llm-gateway/route-config';
import type { Metrics, Parts, Running } from '@llm-gateway/runtime';
import type { Tracing } from '@llm-gateway/tracing';
import { holdRules, Upstream } from '@llm-gateway/upstream';
import { Admission } from './admission/admission.ts';
import { queues } from './admission/options.ts';
import { BodyBudget } from './body-budget.ts';
import { EngineIds } from './calls/engine-request-id.ts';
import { InstanceHeaders } from './calls/instance-headers.ts';
import { KnownWorkers } from './calls/known-workers.ts';
import { RetryQueue } from './calls/retry-queue.ts';
import { Clients } from './clients/clients.ts';
import { limitHeaderNames } from './clients/limit-headers.ts';
import { showsClients } from './clients/options.ts';
import { Quota } from './clients/quota.ts';
import { Decider } from './decide/decider.ts';
import { Holders } from './decide/holders.ts';
import { Leases } from './decide/leases.ts';
import { Load } from './decide/load.ts';
import { Prompts } from './decide/prompts.ts';
import { Rehearsal } from './decide/rehearsal.ts';
import { Routers } from './decide/routers.ts';
import { Routes } from './decide/routes.ts';
import { pdProtocol } from './disaggregated/protocols.ts';
import { readSplitPaths, type SplitApi } from './disaggregated/split-paths.ts';
import { Exchange } from './exchange.ts';
import { Gate } from './gate.ts';
import type { Gateway } from './gateway.ts';
import { HealthAnswers } from './health.ts';
import { hopToken } from './hops.ts';
import { ownResponseHeaders } from './http/answer-head.ts';
import { Cors, corsHeaderNames } from './http/cors.ts';
import { readTrustedProxies, type TrustedProxies } from './http/forwarded.ts';
import { ClientServer } from './http/server.ts';
import { Mirror } from './mirror/mirror.ts';
import { Models } from './models.ts';
import { Observer } from './observer.ts';
import type { Settings } from './options.ts';
import { serve } from './request.ts';
import { RequestReports } from './request-reports.ts';
import { StoredResponses } from './responses/stored-responses.ts';
import { RetryBudget } from './retry-budget.ts';
import { ingressStatus } from './status.ts';
import { UsageBook } from './usage/usage-book.ts';
import { UsageStreams } from './usage/usage-streams.ts';

interface IngressParts extends Parts {
  readonly bus: Bus;
  /**
   * For mirror copies alone. A server holds back what comes over a connection whose messages
   * somebody takes too slowly; decisions must not be among them.
   */
  readonly mirrorBus?: Bus;
  /** Null: no traces. */
  readonly tracing?: Tracing | null;
}

/**
 * So long, in milliseconds, an ingress whose routes name other endpoints waits for the instances
 * before it is ready without them.
 */
const instancesGraceMs = 2000;

/** Starts an ingress: bound when the promise resolves, ready once it knows where requests can go. */
export async function start(options: Settings, deps: IngressParts): Promise<Running> {
  const { log, infoLines, metrics, shutdown, hide, describe, bus, mirrorBus = bus, tracing = null } = deps;
  const ingress = `ingress-${randomUUID().slice(0, 8)}`;
  const self = hopToken(options.gatewayId);
  const proxies = trustedProxies(options.trustForwarded);
  const cors = Cors.of(options);
  await using parts = new AsyncDisposableStack();

  const observer = new Observer({ log, infoLines, metrics });
  const isCacheAware = options.schedulingPolicy === 'cache-aware';
  const { fleet, instances } = parts.use(
    startFleet(bus, options, { policy: isCacheAware ? 'affinity' : 'round-robin' }),
  );
  const load = parts.use(
    new Load({
      ingress,
      bus,
      onOutcomes: (outcomes) => fleet.outcomes(outcomes, { now: performance.now(), random: Math.random }),
      onLoad: (report) => fleet.report(report, performance.now()),
    }),
  );
  const upstream = parts.use(
    new Upstream(options, {
      withheld: [
        ...ownResponseHeaders,
        ...(showsClients(options) ? limitHeaderNames : []),
        ...(cors === null ? [] : corsHeaderNames),
      ],
      proxies: deps.proxies,
    }),
  );
  const timeoutMs = options.decisionTimeoutMs;
  const followed = parts.use(
    followRoutes(options, { log, metrics, hide, options: deps.options, onChange: (table) => routes.take(table) }),
  );
  const workers = new Holders();
  const routers = parts.use(
    new Routers(bus, {
      onHeard: () => routes.look(),
      onOther({ service, process, generations }) {
        if (service !== 'retry-worker' || !options.fallbackRetryQueueEnabled) return;
        workers.hear(process, generations, performance.now());
        routes.look();
      },
    }),
  );
  const routes: Routes = parts.use(
    new Routes(followed.first, {
      holding: [
        ({ generation }) => routers.holding(generation, performance.now()),
        ({ endpointGeneration }) => workers.holding(endpointGeneration, performance.now()),
      ],
      onUse: ({ generation }) => {
        log.info({ generation }, 'requests are decided by the new route config');
        held.now();
      },
      onLate: ({ generation }) =>
        log.warn({ generation }, 'no router has the new route config; requests are decided by the one before'),
    }),
  );
  const held = parts.use(
    announce(bus, configHeld, () => ({
      process: ingress,
      service: 'ingress',
      generations: [...routes.generations],
      active: routes.current.generation,
    })),
  );
  const table = () => routes.current;
  const prompts =
    options.schedulingPolicy === 'round-robin' ? null : new Prompts({ ...options, fingerprints: isCacheAware });
  // Of a pair nothing is chosen before its request is there.
  const leases =
    options.decisionLeases && fleetMode(options) === 'neutral'
      ? parts.use(
          new Leases({ ingress, bus, generation: () => table().generation, routers, fleet, load, timeoutMs, observer }),
        )
      : null;
  const decider = parts.use(
    new Decider({ ingress, bus, routers, table, fleet, load, leases, prompts, timeoutMs, observer }),
  );
  const pd = pdProtocol(options);
  const canServe = () => instances.state().synced && (pd === null || fleet.hasCompletePair());
  const startedAtMs = performance.now();
  // An ingress that starts would otherwise send its first requests to the fallback, which may cost
  // money, while every instance is well.
  const canServeWithoutInstances = () =>
    table().endpoints.some((endpoint) => !endpoint.local) &&
    (!table().endpoints.some((endpoint) => endpoint.local) || performance.now() - startedAtMs >= instancesGraceMs);
  const clients = await Clients.start(options, { log, metrics });
  if (clients !== null) parts.use(clients);
  else if (!isLoopback(options.host)) {
    log.warn(
      { host: options.host },
      'everybody who reaches the listener is let in: there is no --client-keys and no --client-jwt-jwks-url',
    );
  }
  const quota =
    clients === null ? null : parts.use(new Quota({ ingress, bus, metrics, timeoutMs: options.quotaTimeoutMs }));
  const admission = queues(options)
    ? parts.use(new Admission({ ingress, bus, fleet, settings: options, metrics }))
    : null;
  const instanceHeaders = new InstanceHeaders({
    instanceApiKey: options.instanceApiKey,
    withheld: clients !== null,
  });
  const bodies = new BodyBudget(options.maxHeldBodyBytes);
  const models = new Models({
    upstream,
    table,
    hasNamed: (model) => fleet.hasNamed(model),
    instances: () => {
      const live = fleet.liveInstances();
      return live.length > 0 ? live : fleet.instances();
    },
    self,
    instanceHeaders: clients === null && options.instanceApiKey === '' ? null : instanceHeaders,
    exposeRouteHeaders: options.exposeRouteHeaders,
  });
  const mirror = parts.use(await Mirror.start(options, { ingress, bus: mirrorBus, log, metrics, hide }));
  const percent = options.retryBudgetPercent;
  const budget =
    percent === 0
      ? null
      : new RetryBudget({
          percent,
          now: () => performance.now(),
          onExhausted: () => observer.budgetExhausted(),
        });
  const gate = new Gate(options.maxConcurrentRequests);
  const responses = parts.use(new StoredResponses({ ingress, self, bus, fleet, upstream }));
  const gateway: Gateway = {
    gate,
    clients,
    quota,
    admission,
    routes,
    rehearsal:
      options.nextRouteConfig === ''
        ? null
        : parts.use(new Rehearsal({ ...options, routeConfig: options.nextRouteConfig }, { log, metrics, hide })),
    decider,
    load,
    engineIds: new EngineIds(),
    instanceHeaders,
    upstream,
    bodies,
    models,
    responses,
    health: new HealthAnswers(deps),
    cors,
    hasServed: (model) => fleet.hasServed(model),
    instancesName: (model) => fleet.names(model, performance.now()),
    observer,
    usage: parts.use(new UsageBook({ ingress, bus, metrics, records: options.usageRecords })),
    usageStreams: options.usageStreams === 'off' ? null : new UsageStreams(options.usageStreams),
    mirror,
    pd,
    pdPaths: splitPaths(options.pdPaths),
    maxBodyBytes: options.maxBodyBytes,
    retryMaxCount: options.retryMaxCount,
    connectRetryCount: options.connectRetryCount,
    queue: options.fallbackRetryQueueEnabled
      ? parts.use(
          new RetryQueue({
            bus,
            workers: parts.use(new KnownWorkers(bus, log)),
            upstream,
            observer,
            exposeRouteHeaders: options.exposeRouteHeaders,
            budget,
            requestDeadlineMs: options.upstreamHeadersTimeoutMs,
          }),
        )
      : null,
    budget,
    exposeRouteHeaders: options.exposeRouteHeaders,
    holdRules: holdRules(options),
    heartbeatMs: options.heartbeatIntervalMs,
  };

  const server = parts.use(
    await ClientServer.listen({
      settings: options,
      log,
      metrics,
      isTight: () => bodies.isTight,
      withholdsCredentials: clients !== null,
      onRefused: (limit) => observer.connectionRefused(limit),
      onRequest(connection, head, problem) {
        const exchange = new Exchange({ head, problem }, { connection, budget: bodies, self, proxies, cors, tracing });
        serve(exchange, gateway);
      },
      onDefect: (error) => observer.defect(error, ''),
    }),
  );
  shutdown.addEventListener('abort', () => server.announceClose(), { once: true });

  metrics.gauge({
    name: 'route_config_waiting',
    help: '1 while a newer route config waits for a router that has it, and the one before decides',
    collect: () => Number(routes.waiting),
  });
  const generation = () => table().generation;
  const reports = parts.use(new RequestReports({ bus, observer, ingress, generation, inFlight: () => gate.inside }));
  const status = {
    table,
    fleet,
    load,
    gate,
    bodies,
    admission,
    decider,
    mirror,
    clients,
    quota,
    connections: () => server.size,
  };
  parts.use(
    tellStatus(bus, {
      process: ingress,
      service: 'ingress',
      describe,
      section: () => ({ generation: generation(), ingress: ingressStatus(status) }),
      onQuery: ({ requests }) => requests && reports.watch(),
    }),
  );

  declareGauges(metrics, { gate, decider, bodies, server });
  if (leases !== null) {
    metrics.gauge({
      name: 'leased_picks_held',
      help: 'Instances that routers chose in advance and that no request has taken yet',
      collect: () => [...leases.unused().values()].reduce((sum, count) => sum + count, 0),
    });
  }
  if (pd !== null) {
    metrics.gauge({
      name: 'complete_pair',
      help: '1 while a prefill and a decode instance of the same model are known',
      collect: () => (fleet.hasCompletePair() ? 1 : 0),
    });
  }
  const kept = parts.move();
  return {
    addresses: { http: server.address, internal: mirror.address },
    ready: () => !gate.closed && (canServe() || canServeWithoutInstances()),
    async drain(signal) {
      gate.closed = true;
      await server.drain(signal, { graceMs: options.drainDelayMs });
      await mirror.drain(signal);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Of a flag that was checked before. */
function splitPaths(list: string): ReadonlyMap<string, SplitApi> {
  const read = readSplitPaths(list);
  if ('mistake' in read) throw new GatewayError('invalid_config', `--pd-paths: ${read.mistake}`);
  return read.paths;
}

/** Of a flag that was checked before. */
function trustedProxies(list: string): TrustedProxies | null {
  const read = readTrustedProxies(list);
  if ('mistake' in read) throw new GatewayError('invalid_config', `--trust-forwarded: ${read.mistake}`);
  return read.proxies;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

function declareGauges(
  metrics: Metrics,
  { gate, decider, bodies, server }: { gate: Gate; decider: Decider; bodies: BodyBudget; server: ClientServer },
): void {
  metrics.gauge({
    name: 'requests_in_flight',
    help: 'Requests being served',
    collect: () => gate.inside,
  });
  metrics.gauge({
    name: 'degraded',
    help: '1 while this ingress decides itself because no router answers',
    collect: () => (decider.degraded ? 1 : 0),
  });
  metrics.gauge({
    name: 'held_body_bytes',
    help: 'Bytes held for requests: bodies, changed copies of them, and answers that are kept back',
    collect: () => bodies.heldBytes,
  });
  metrics.gauge({
    name: 'client_connections',
    help: 'Open connections of clients',
    collect: () => server.size,
  });
}
