import { randomUUID } from 'node:crypto';
import { announce, type Bus, tellStatus } from '@llm-gateway/bus';
import { originOf } from '@llm-gateway/http1';
import { configHeld, maxHeldGenerations } from '@llm-gateway/protocol';
import { followRoutes } from '@llm-gateway/route-config';
import { HeldTables } from '@llm-gateway/routing';
import { advertisedHost, type Parts, type Running } from '@llm-gateway/runtime';
import type { Tracing } from '@llm-gateway/tracing';
import { holdRules, Upstream } from '@llm-gateway/upstream';
import { jobSurface } from './job-surface.ts';
import { declareGauges, type Log, Observer } from './observer.ts';
import type { Options } from './options.ts';
import { RetryWorker } from './worker.ts';

/** Starts a retry worker: bound when the promise resolves. Whoever made the bus closes it. */
export async function start(
  options: Options,
  {
    log,
    metrics,
    shutdown,
    describe,
    bus,
    hide,
    options: live,
    proxies = null,
    tracing = null,
  }: Pick<Parts, 'metrics' | 'shutdown' | 'describe'> &
    Partial<Pick<Parts, 'hide' | 'options' | 'proxies'>> & {
      readonly log: Log;
      readonly bus: Bus;
      /** Null: no traces. */
      readonly tracing?: Tracing | null;
    },
): Promise<Running> {
  await using parts = new AsyncDisposableStack();
  const followed = parts.use(
    followRoutes(options, {
      log,
      metrics,
      ...(hide && { hide }),
      ...(live && { options: live }),
      onChange(table) {
        tables.take(table, performance.now());
        held.now();
      },
    }),
  );
  const tables = new HeldTables(followed.first, {
    maxHeld: maxHeldGenerations,
    generationOf: ({ endpointGeneration }) => endpointGeneration,
  });
  const name = `retry-worker-${randomUUID().slice(0, 8)}`;
  const held = parts.use(
    announce(bus, configHeld, () => ({
      process: name,
      service: 'retry-worker',
      generations: [...tables.generations],
      active: tables.newest.endpointGeneration,
    })),
  );
  const upstream = parts.use(new Upstream(options, { proxies }));
  const worker = parts.use(
    new RetryWorker({
      bus,
      name,
      tables,
      upstream,
      tracing,
      observer: new Observer(log, metrics),
      limits: {
        maxWaiting: options.fallbackRetryQueueSize,
        maxWorking: options.fallbackRetryWorkerSize,
        maxHeldBytes: options.fallbackRetryMaxHeldBytes,
      },
      rules: {
        maxCount: options.fallbackRetryMaxCount,
        initDelayMs: options.fallbackRetryInitDelayMs,
        maxDelayMs: options.fallbackRetryMaxDelayMs,
      },
      headersTimeoutMs: options.upstreamHeadersTimeoutMs,
      holdRules: holdRules(options),
    }),
  );
  declareGauges(metrics, worker.queue, () => worker.oldestMs);

  // Last in, first out: connections are cut before what their jobs use goes away.
  const surface = parts.use(
    jobSurface((id, request, response) => worker.serve(id, request, response), options.fallbackRetryMaxHeldBytes),
  );
  const { port } = await surface.listen({
    host: options.internalHost,
    port: options.internalPort,
    flags: { host: 'internal-host', port: 'internal-port' },
  });

  const host = advertisedHost({ advertiseHost: options.advertiseHost, listenHost: options.internalHost });
  const url = originOf({ host, port });
  worker.open(url);
  parts.defer(() => worker.close());
  // A job that waits is better off elsewhere from the moment on that this process is to end.
  shutdown.addEventListener('abort', () => worker.close(), { once: true });
  const { queue } = worker;
  parts.use(
    tellStatus(bus, {
      process: name,
      service: 'retry-worker',
      describe,
      section: () => ({
        generation: tables.newest.generation,
        retryWorker: {
          waiting: queue.waiting,
          calling: queue.working,
          oldestMs: worker.oldestMs,
          heldBytes: queue.heldBytes,
          places: options.fallbackRetryQueueSize + options.fallbackRetryWorkerSize,
        },
      }),
    }),
  );
  const kept = parts.move();
  return {
    addresses: { internal: url },
    ready: () => bus.connected,
    drain(signal) {
      worker.close();
      return worker.idle(signal);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
