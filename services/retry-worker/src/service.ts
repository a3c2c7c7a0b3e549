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

interface Deps
  extends Pick<Parts, 'metrics' | 'shutdown' | 'describe'>,
    Partial<Pick<Parts, 'hide' | 'options' | 'proxies'>> {
  readonly log: Log;
  readonly bus: Bus;
  /** Null: no traces. */
  readonly tracing?: Tracing | null;
}

/** What every step of the wiring has. */
interface Wiring {
  /** Names this process on the bus. */
  readonly name: string;
  readonly options: Options;
  readonly deps: Deps;
  /** Disposed in reverse of the order in which they were used. */
  readonly parts: AsyncDisposableStack;
}

/** Starts a retry worker: bound when the promise resolves. Whoever made the bus closes it. */
export async function start(options: Options, deps: Deps): Promise<Running> {
  const { bus, metrics, shutdown } = deps;
  await using parts = new AsyncDisposableStack();
  const wiring: Wiring = { name: `retry-worker-${randomUUID().slice(0, 8)}`, options, deps, parts };
  const tables = followTables(wiring);
  const worker = parts.use(makeWorker(wiring, tables));
  declareGauges(metrics, worker.queue, () => worker.oldestMs);
  const url = await listen(wiring, worker);
  worker.open(url);
  parts.defer(() => worker.close());
  // A job that waits is better off elsewhere from the moment on that this process is to end.
  shutdown.addEventListener('abort', () => worker.close(), { once: true });
  reportStatus(wiring, worker, tables);
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

/** The route configs that offers may name, and the announcement of them. */
function followTables({ name, options, deps, parts }: Wiring): HeldTables {
  const { log, metrics, bus, hide, options: live } = deps;
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
  const held = parts.use(
    announce(bus, configHeld, () => ({
      process: name,
      service: 'retry-worker',
      generations: [...tables.generations],
      active: tables.newest.endpointGeneration,
    })),
  );
  return tables;
}

function makeWorker({ name, options, deps, parts }: Wiring, tables: HeldTables): RetryWorker {
  const { bus, log, metrics, proxies = null, tracing = null } = deps;
  return new RetryWorker({
    bus,
    name,
    tables,
    upstream: parts.use(new Upstream(options, { proxies })),
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
  });
}

/** Listens for the requests of accepted jobs. Resolves with the URL that ingresses reach it at. */
async function listen({ options, parts }: Wiring, worker: RetryWorker): Promise<string> {
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
  return originOf({ host, port });
}

/** Reports what this worker does to people who look. */
function reportStatus({ name, options, deps, parts }: Wiring, worker: RetryWorker, tables: HeldTables): void {
  const { bus, describe } = deps;
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
}
