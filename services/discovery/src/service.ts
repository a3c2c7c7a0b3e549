import { randomUUID } from 'node:crypto';
import { type Bus, eachSecond, tellStatus } from '@llm-gateway/bus';
import type { Instance } from '@llm-gateway/protocol';
import type { Parts, Running } from '@llm-gateway/runtime';
import { Upstream } from '@llm-gateway/upstream';
import { Announcing, maxLoggedId } from './announcing.ts';
import { EngineLooks } from './engine-looks.ts';
import { MirrorOrders } from './mirror-orders.ts';
import type { Settings } from './options.ts';
import { OtherInstallations, sourceOf } from './other-installations.ts';
import { maxNameBytes, ReportedModels } from './reported-models.ts';
import { openSource, type SourceStep } from './source.ts';

type Deps = Parts & { readonly bus: Bus };

/** What every step of the wiring has. */
interface Wiring {
  /** Names this process on the bus. */
  readonly replica: string;
  readonly values: Settings;
  readonly deps: Deps;
  /** Disposed in reverse of the order in which they were used. */
  readonly parts: AsyncDisposableStack;
}

/** Discovery: answers `list`, announces changes and heartbeats. Whoever made the bus closes it. */
export async function start(values: Settings, deps: Deps): Promise<Running> {
  const { bus, log, metrics } = deps;
  const replica = `discovery-${randomUUID().slice(0, 8)}`;
  const ownSource = sourceOf(values);
  await using parts = new AsyncDisposableStack();
  const wiring: Wiring = { replica, values, deps, parts };
  const announcing: Announcing = new Announcing({
    ...{ replica, source: ownSource, bus, log, metrics },
    onGreeted: () => mirrorOrders.tell(),
  });
  const models = askForModels(wiring, (upserts) => announcing.change(upserts, []));
  const status = reportStatus(wiring, announcing);
  const looks = lookAtEngines(wiring);
  const mirrorOrders = new MirrorOrders(bus, { replica, log });
  announcing.followOrders();
  const onStep = (step: SourceStep): void => {
    const turned = announcing.setStore(step.storeUp);
    looks?.change(step.upserts, step.removals);
    announcing.change(models?.change(step.upserts, step.removals) ?? step.upserts, step.removals);
    if (!announcing.speaking && step.storeUp) announcing.speak();
    if (!turned) return;
    announcing.beat();
    status.tell();
  };
  const source = openSource(values, deps, onStep);
  const others = new OtherInstallations(ownSource, deps);
  const beats = eachSecond(() => announcing.beat());
  const kept = parts.move();
  return {
    addresses: {},
    ready: () => announcing.speaking && bus.connected,
    async [Symbol.asyncDispose]() {
      for (const part of [beats, others, status, mirrorOrders, announcing]) part[Symbol.dispose]();
      await source[Symbol.asyncDispose]();
      await kept.disposeAsync();
    },
  };
}

/** Calls of engines for their models are short, and few at a time. */
const limits = {
  upstreamConnectTimeoutMs: 2000,
  upstreamHeadersTimeoutMs: 3000,
  upstreamIdleTimeoutMs: 3000,
  upstreamKeepAliveMs: 1000,
  upstreamMaxConnections: 1,
};

/** Asks instances for their models. Null when they are not to be asked. */
function askForModels(
  { values, deps: { log, metrics }, parts }: Wiring,
  onChange: (upserts: readonly Instance[]) => void,
): ReportedModels | null {
  const tooManyNames = metrics.counter({
    name: 'instances_too_many_models_total',
    help: 'Instances whose model list is ignored because it is too large',
  });
  const intervalMs = values.instanceModelsIntervalMs;
  if (intervalMs === 0) return null;
  return parts.use(
    new ReportedModels({
      upstream: parts.use(new Upstream(limits)),
      intervalMs,
      onChange,
      onAway({ id, host, port }, error) {
        if (values.llmBackendDiscovery !== 'endpoints') return;
        const cause = error.cause instanceof Error && 'code' in error.cause ? String(error.cause.code) : error.code;
        const address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
        log.warn(
          { instance: id.slice(0, maxLoggedId), cause },
          `${address} of --llm-backend-endpoints does not answer; requests go to others until it does`,
        );
      },
      onTooMany({ id, model }, bytes) {
        tooManyNames.inc();
        const known = model === '' ? 'its list is ignored' : 'only the model of its record is used';
        log.warn(
          { instance: id.slice(0, maxLoggedId), bytes, maxBytes: maxNameBytes },
          `instance lists ${bytes} bytes of model names, more than ${maxNameBytes}; ${known}`,
        );
      },
    }),
  );
}

/** Reads the metrics of engines, and reports them. Null when they are not to be read. */
function lookAtEngines({ replica, values, deps: { bus, metrics }, parts }: Wiring): EngineLooks | null {
  if (values.engineMetricsIntervalMs === 0) return null;
  return parts.use(
    new EngineLooks({
      ...{ bus, metrics, replica },
      intervalMs: values.engineMetricsIntervalMs,
      path: values.engineMetricsPath,
    }),
  );
}

/** Reports what this replica has to people who look. */
function reportStatus(
  { replica, values, deps: { bus, describe } }: Wiring,
  announcing: Announcing,
): ReturnType<typeof tellStatus> {
  return tellStatus(bus, {
    process: replica,
    service: 'discovery',
    describe,
    section: () => ({ discovery: { source: values.llmBackendDiscovery, ...announcing.state } }),
  });
}
