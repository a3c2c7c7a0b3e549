import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Bus, followInstances } from '@llm-gateway/bus';
import { Fleet, fleetMode, needsKvAddress, routeTable } from '@llm-gateway/routing';
import type { Metrics, Parts, Running } from '@llm-gateway/runtime';
import { Upstream } from '@llm-gateway/upstream';
import { Decider } from './decider.ts';
import { pdProtocol } from './disaggregated/protocol.ts';
import { Exchange } from './exchange.ts';
import { Gate } from './gate.ts';
import { httpSurface } from './http-surface.ts';
import { KnownWorkers } from './known-workers.ts';
import { Load } from './load.ts';
import { Mirror } from './mirror/mirror.ts';
import { Models } from './models.ts';
import { Observer } from './observer.ts';
import type { Settings } from './options.ts';
import type { Refused } from './refusal.ts';
import { type Gateway, serve } from './request.ts';
import { BodyBudget } from './request-body.ts';
import { RetryBudget } from './retry-budget.ts';
import { RetryQueue } from './retry-queue.ts';

interface IngressParts extends Parts {
  readonly bus: Bus;
  /** For mirror copies alone. A server holds back what comes over a connection whose messages somebody takes too slowly; decisions must not be among them. */
  readonly mirrorBus?: Bus;
}

/** Starts an ingress: bound when the promise resolves, ready once it knows where requests can go. */
export async function start(options: Settings, { log, metrics, bus, mirrorBus = bus }: IngressParts): Promise<Running> {
  const table = routeTable(
    options,
    (path) => readFileSync(path, 'utf8'),
    (line) => log.warn(line),
  );
  const ingress = `ingress-${randomUUID().slice(0, 8)}`;
  await using parts = new AsyncDisposableStack();

  const observer = new Observer(log, metrics);
  const fleet = new Fleet({
    mode: fleetMode(options),
    policy: 'round-robin',
    kvAddressNeeded: needsKvAddress(options),
  });
  const instances = parts.use(
    followInstances(bus, {
      onReset: (all) => fleet.reset(all),
      onChange: (upserts, removals) => fleet.change(upserts, removals),
    }),
  );
  const load = parts.use(
    new Load({
      ingress,
      bus,
      onOutcomes: (outcomes) => fleet.outcomes(outcomes, { now: performance.now(), random: Math.random }),
    }),
  );
  const upstream = parts.use(new Upstream(options));
  const decider = parts.use(
    new Decider({ ingress, bus, table, fleet, load, timeoutMs: options.decisionTimeoutMs, observer }),
  );
  const pd = pdProtocol(options);
  const canServe = () => instances.state().synced && (pd === null || fleet.hasCompletePair());
  const bodies = new BodyBudget(options.maxHeldBodyBytes);
  const models = new Models({
    upstream,
    table,
    instances: () => fleet.instances(),
    onAnswered: (id) => observer.listedModels(id),
  });
  const mirror = parts.use(await Mirror.start(options, { ingress, bus: mirrorBus, log, metrics }));
  const percent = options.retryBudgetPercent;
  const budget =
    percent === 0
      ? null
      : new RetryBudget({
          percent,
          now: () => performance.now(),
          onExhausted: () => observer.budgetExhausted(),
        });
  const gateway: Gateway = {
    table,
    decider,
    load,
    upstream,
    bodies,
    observer,
    mirror,
    pd,
    maxBodyBytes: options.maxBodyBytes,
    retryMaxCount: options.retryMaxCount,
    queue: options.fallbackRetryQueueEnabled
      ? parts.use(
          new RetryQueue({
            bus,
            workers: parts.use(new KnownWorkers(bus, log)),
            generation: table.generation,
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
  };

  const refused = (what: Refused) => observer.refused(what);
  const gate = new Gate(options.maxConcurrentRequests, refused);
  const app = httpSurface(options, {
    serve: (request, response, path) =>
      gate.pass(response, () => serve(new Exchange(request, response, path), gateway)),
    models: (request, response) => gate.pass(response, () => models.answer(request, response)),
    refused,
  });
  parts.defer(() => app.close());
  await app.listen({ host: options.host, port: options.port });
  // Last in, first out: connections are cut before what their requests use goes away.
  parts.defer(() => app.server.closeAllConnections());

  declareGauges(metrics, { gate, decider, bodies });
  if (pd !== null) {
    metrics.gauge({
      name: 'complete_pair',
      help: '1 while a prefill and a decode instance of the same model are known',
      collect: () => (fleet.hasCompletePair() ? 1 : 0),
    });
  }
  const kept = parts.move();
  return {
    addresses: { http: addressOf(app.server), internal: mirror.address },
    ready: () => !gate.closed && (canServe() || table.endpoints.some((endpoint) => !endpoint.local)),
    async drain(signal) {
      await gate.drain(app.server, signal);
      await mirror.drain(signal);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function addressOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

function declareGauges(
  metrics: Metrics,
  { gate, decider, bodies }: { gate: Gate; decider: Decider; bodies: BodyBudget },
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
    help: 'Bytes of request bodies held',
    collect: () => bodies.heldBytes,
  });
}
