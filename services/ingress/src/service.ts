import { randomUUID } from 'node:crypto';
import { type Bus, tellStatus } from '@llm-gateway/bus';
import { type Fleet, type FollowedFleet, startFleet } from '@llm-gateway/fleet';
import { GatewayError } from '@llm-gateway/protocol';
import type { Parts, Running } from '@llm-gateway/runtime';
import type { Tracing } from '@llm-gateway/tracing';
import { holdRules, Upstream } from '@llm-gateway/upstream';
import { Admission } from './admission/admission.ts';
import { Gate } from './admission/gate.ts';
import { queues } from './admission/options.ts';
import { HealthAnswers } from './answers/health-answers.ts';
import { Models } from './answers/models.ts';
import { BodyBudget } from './body/body-budget.ts';
import { EngineIds } from './calls/engine-request-id.ts';
import { InstanceHeaders } from './calls/instance-headers.ts';
import { KnownWorkers } from './calls/known-workers.ts';
import { RetryQueue } from './calls/retry-queue.ts';
import { Clients } from './clients/clients.ts';
import { limitHeaderNames } from './clients/limit-headers.ts';
import { showsClients } from './clients/options.ts';
import { Quota } from './clients/quota.ts';
import { Load } from './decide/load.ts';
import { Rehearsal } from './decide/rehearsal.ts';
import { type Deciding, startDeciding } from './decide/start-deciding.ts';
import { pdProtocol } from './disaggregated/protocols.ts';
import { readSplitPaths, type SplitApi } from './disaggregated/split-paths.ts';
import { Exchange } from './exchange/exchange.ts';
import { RetryBudget } from './failover/retry-budget.ts';
import type { Gateway } from './gateway.ts';
import { ownResponseHeaders } from './http/answer-head.ts';
import { Cors, corsHeaderNames } from './http/cors.ts';
import { readTrustedProxies, type TrustedProxies } from './http/forwarded.ts';
import { hopToken } from './http/hops.ts';
import { ClientServer } from './http/server.ts';
import { Mirror } from './mirror/mirror.ts';
import { declareGauges } from './observe/gauges.ts';
import { Observer } from './observe/observer.ts';
import { RequestReports } from './observe/request-reports.ts';
import { ingressStatus } from './observe/status.ts';
import type { Settings } from './options.ts';
import { serve } from './request.ts';
import { StoredResponses } from './responses/stored-responses.ts';
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

/** What every step of the wiring has. */
interface Wiring {
  /** Names this process on the bus. */
  readonly ingress: string;
  /** What this gateway is called in hops. */
  readonly self: string;
  readonly options: Settings;
  readonly deps: IngressParts;
  /** Disposed in reverse of the order in which they were used. */
  readonly parts: AsyncDisposableStack;
  readonly observer: Observer;
  /** Null: browsers' pages of other origins are not served. */
  readonly cors: Cors | null;
}

/** The instances, and what this ingress has at them. */
interface FleetView extends Pick<FollowedFleet, 'fleet' | 'instances'> {
  readonly load: Load;
}

/** Who may send requests, how many, and when they may go on to the instances. */
type Entrance = Pick<Gateway, 'clients' | 'quota' | 'admission'>;

/**
 * So long, in milliseconds, an ingress whose routes name other endpoints waits for the instances
 * before it is ready without them.
 */
const instancesGraceMs = 2000;

/**
 * Starts an ingress: bound when the promise resolves, ready once it knows where requests can go.
 */
export async function start(options: Settings, deps: IngressParts): Promise<Running> {
  await using parts = new AsyncDisposableStack();
  const wiring: Wiring = {
    ingress: `ingress-${randomUUID().slice(0, 8)}`,
    self: hopToken(options.gatewayId),
    options,
    deps,
    parts,
    observer: new Observer(deps),
    cors: Cors.of(options),
  };
  const view = followFleet(wiring);
  const upstream = parts.use(openUpstream(wiring));
  const deciding = startDeciding(options, { ...wiring, ...deps, ...view });
  const canServe = readiness(wiring, view, deciding);
  const entrance = await openEntrance(wiring, view.fleet);
  const gateway = await assemble(wiring, { ...view, ...deciding, ...entrance, upstream });
  const server = parts.use(await listen(wiring, gateway));
  report(wiring, { gateway, server, fleet: view.fleet, notes: deciding.notes });
  declareGauges(deps.metrics, { ...gateway, ...view, server, leases: deciding.leases, pairs: gateway.pd !== null });
  const kept = parts.move();
  const { gate, mirror } = gateway;
  return {
    addresses: { http: server.address, internal: mirror.address },
    ready: () => !gate.closed && canServe(),
    async drain(signal) {
      gate.closed = true;
      await server.drain(signal, { graceMs: options.drainDelayMs });
      await mirror.drain(signal);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function followFleet({ ingress, options, deps: { bus }, parts }: Wiring): FleetView {
  const policy = options.schedulingPolicy === 'cache-aware' ? 'affinity' : 'round-robin';
  const { fleet, instances } = parts.use(startFleet(bus, options, { policy }));
  const load = parts.use(
    new Load({
      ingress,
      bus,
      onOutcomes: (outcomes) => fleet.outcomes(outcomes, { now: performance.now(), random: Math.random }),
      onLoad: (report) => fleet.report(report, performance.now()),
    }),
  );
  return { fleet, instances, load };
}

function openUpstream({ options, deps, cors }: Wiring): Upstream {
  return new Upstream(options, {
    withheld: [
      ...ownResponseHeaders,
      ...(showsClients(options) ? limitHeaderNames : []),
      ...(cors === null ? [] : corsHeaderNames),
    ],
    proxies: deps.proxies,
  });
}

/** Whether requests can be served, given the known instances and endpoints. */
function readiness({ options }: Wiring, { fleet, instances }: FleetView, { routes }: Deciding): () => boolean {
  const startedAtMs = performance.now();
  const servesInstances = () =>
    instances.state().synced && (options.pdDisaggProtocol === '' || fleet.hasCompletePair());
  // An ingress that starts would otherwise send its first requests to the fallback, which may cost
  // money, while every instance is well.
  const servesEndpoints = () => {
    const { endpoints } = routes.current;
    if (!endpoints.some((endpoint) => !endpoint.local)) return false;
    return !endpoints.some((endpoint) => endpoint.local) || performance.now() - startedAtMs >= instancesGraceMs;
  };
  return () => servesInstances() || servesEndpoints();
}

async function openEntrance({ ingress, options, deps, parts }: Wiring, fleet: Fleet): Promise<Entrance> {
  const { log, metrics, bus } = deps;
  const clients = await Clients.start(options, { log, metrics });
  if (clients !== null) parts.use(clients);
  else if (!isLoopback(options.host)) {
    log.warn(
      { host: options.host },
      'no client authentication; everyone who reaches the listener is served, set --client-keys or --client-jwt-jwks-url',
    );
  }
  const quota =
    clients === null ? null : parts.use(new Quota({ ingress, bus, metrics, timeoutMs: options.quotaTimeoutMs }));
  const admission = queues(options)
    ? parts.use(new Admission({ ingress, bus, fleet, settings: options, metrics }))
    : null;
  return { clients, quota, admission };
}

/** What the gateway is made of that was started before. */
interface Started extends FleetView, Deciding, Entrance {
  readonly upstream: Upstream;
}

async function assemble(wiring: Wiring, started: Started): Promise<Gateway> {
  const { ingress, self, options, deps, parts, observer, cors } = wiring;
  const { bus, mirrorBus = bus, log, metrics, hide } = deps;
  const { fleet, load, routes, decider, clients, quota, admission, upstream } = started;
  const { instanceApiKey } = options;
  const instanceHeaders = new InstanceHeaders({ instanceApiKey, withheld: clients !== null });
  const hasOwnHeaders = clients !== null || instanceApiKey !== '';
  const mirror = parts.use(await Mirror.start(options, { ingress, bus: mirrorBus, log, metrics, hide }));
  const budget = retryBudget(wiring);
  return {
    gate: new Gate(options.maxConcurrentRequests),
    clients,
    quota,
    admission,
    routes,
    decider,
    load,
    upstream,
    observer,
    cors,
    mirror,
    budget,
    instanceHeaders,
    engineIds: new EngineIds(),
    bodies: new BodyBudget(options.maxHeldBodyBytes),
    models: listModels(wiring, started, hasOwnHeaders ? instanceHeaders : null),
    responses: parts.use(new StoredResponses({ ingress, self, bus, fleet, upstream })),
    rehearsal: rehearse(wiring),
    health: new HealthAnswers(deps),
    hasServed: (model) => fleet.hasServed(model),
    instancesName: (model) => fleet.names(model, performance.now()),
    usage: parts.use(new UsageBook({ ingress, bus, metrics, records: options.usageRecords })),
    usageStreams: options.usageStreams === 'off' ? null : new UsageStreams(options.usageStreams),
    pd: pdProtocol(options),
    pdPaths: splitPaths(options.pdPaths),
    queue: retryQueue(wiring, upstream, budget),
    maxBodyBytes: options.maxBodyBytes,
    retryMaxCount: options.retryMaxCount,
    connectRetryCount: options.connectRetryCount,
    exposeRouteHeaders: options.exposeRouteHeaders,
    holdRules: holdRules(options),
    heartbeatMs: options.heartbeatIntervalMs,
  };
}

function listModels(
  { self, options }: Wiring,
  { upstream, routes, fleet }: Started,
  instanceHeaders: InstanceHeaders | null,
): Models {
  return new Models({
    upstream,
    table: () => routes.current,
    hasNamed: (model) => fleet.hasNamed(model),
    instances: () => {
      const live = fleet.liveInstances();
      return live.length > 0 ? live : fleet.instances();
    },
    self,
    instanceHeaders,
    exposeRouteHeaders: options.exposeRouteHeaders,
  });
}

function rehearse({ options, deps: { log, metrics, hide }, parts }: Wiring): Rehearsal | null {
  if (options.nextRouteConfig === '') return null;
  return parts.use(new Rehearsal({ ...options, routeConfig: options.nextRouteConfig }, { log, metrics, hide }));
}

function retryBudget({ options: { retryBudgetPercent: percent }, observer }: Wiring): RetryBudget | null {
  if (percent === 0) return null;
  return new RetryBudget({
    percent,
    now: () => performance.now(),
    onExhausted: () => observer.budgetExhausted(),
  });
}

function retryQueue(
  { options, deps: { bus, log }, parts, observer }: Wiring,
  upstream: Upstream,
  budget: RetryBudget | null,
): RetryQueue | null {
  if (!options.fallbackRetryQueueEnabled) return null;
  return parts.use(
    new RetryQueue({
      bus,
      workers: parts.use(new KnownWorkers(bus, log)),
      upstream,
      observer,
      exposeRouteHeaders: options.exposeRouteHeaders,
      budget,
      requestDeadlineMs: options.upstreamHeadersTimeoutMs,
    }),
  );
}

async function listen({ self, options, deps, observer, cors }: Wiring, gateway: Gateway): Promise<ClientServer> {
  const { log, metrics, shutdown, tracing = null } = deps;
  const { bodies, clients } = gateway;
  const proxies = trustedProxies(options.trustForwarded);
  const server = await ClientServer.listen({
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
  });
  shutdown.addEventListener('abort', () => server.announceClose(), { once: true });
  return server;
}

/** Reports what this ingress does to people who look. */
function report(
  { ingress, deps: { bus, describe }, parts, observer }: Wiring,
  { gateway, server, fleet, notes }: { gateway: Gateway; server: ClientServer; fleet: Fleet; notes: Deciding['notes'] },
): void {
  const { gate, routes } = gateway;
  const table = () => routes.current;
  const generation = () => table().generation;
  const reports = parts.use(
    new RequestReports({ bus, observer, notes, ingress, generation, inFlight: () => gate.inside }),
  );
  const status = { ...gateway, table, fleet, connections: () => server.size };
  parts.use(
    tellStatus(bus, {
      process: ingress,
      service: 'ingress',
      describe,
      section: () => ({ generation: generation(), ingress: ingressStatus(status) }),
      onQuery: ({ requests }) => requests && reports.watch(),
    }),
  );
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
