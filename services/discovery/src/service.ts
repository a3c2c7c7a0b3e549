import { randomUUID } from 'node:crypto';
import { type Bus, eachSecond, Reasons, tellStatus } from '@llm-gateway/bus';
import { type Instance, instanceOrder, instanceOrders, instancesChanged, instancesList } from '@llm-gateway/protocol';
import type { Parts, Running } from '@llm-gateway/runtime';
import { Upstream } from '@llm-gateway/upstream';
import { EngineLooks } from './engine-looks.ts';
import { MirrorOrders } from './mirror-orders.ts';
import type { Settings } from './options.ts';
import { Orders } from './orders.ts';
import { OtherInstallations, sourceOf } from './other-installations.ts';
import { maxNameBytes, ReportedModels } from './reported-models.ts';
import { Revisions } from './revisions.ts';
import { openSource, type SourceStep } from './source.ts';

const maxLoggedId = 300;

/** Discovery: answers `list`, announces changes and heartbeats. Whoever made the bus closes it. */
export async function start(values: Settings, deps: Parts & { readonly bus: Bus }): Promise<Running> {
  const { bus, log } = deps;
  const replica = `discovery-${randomUUID().slice(0, 8)}`;
  const tooLarge = deps.metrics.counter({
    name: 'instances_too_large_total',
    help: 'Instances not announced because their names are too long for a message',
  });
  const tooManyNames = deps.metrics.counter({
    name: 'instances_too_many_models_total',
    help: 'Instances whose model list is ignored because it is too large',
  });
  const reasons = new Reasons();
  const ownSource = sourceOf(values);
  const revisions = new Revisions(replica, {
    source: ownSource,
    busMaxBytes: () => bus.maxBytes,
    onTooLarge(id) {
      tooLarge.inc();
      const line = reasons.take('too_large');
      if (line !== null)
        log.warn({ instance: id.slice(0, maxLoggedId), ...line }, 'instance too large for a message; not announced');
    },
  });
  const subscriptions: Disposable[] = [];
  /** As the source has them, without orders. */
  const live = new Map<string, Instance>();
  const orders = new Orders();
  const wall = () => ({ nowMs: Date.now() });
  // Nothing is said before the store was read once: an empty list would be believed.
  let speaking = false;
  let storeUp = false;

  const announceChange = (upserts: readonly Instance[], removals: readonly string[]): void => {
    const now = wall();
    const given = upserts.map((instance) => orders.applied(instance, now));
    const messages = revisions.change(given, removals, storeUp);
    if (speaking) for (const message of messages) bus.publish(instancesChanged, message);
  };
  /** Announces instances whose orders changed or ended. */
  const announceOrders = (ids: readonly string[]): void => {
    const upserts = ids.flatMap((id) => live.get(id) ?? []);
    if (upserts.length > 0) announceChange(upserts, []);
  };
  const tellOrders = (): void => {
    if (orders.size > 0 && bus.connected) bus.publish(instanceOrders, { replica, orders: orders.all() });
  };
  const beat = (): void => {
    announceOrders(orders.expire(wall()));
    tellOrders();
    if (speaking && bus.connected) bus.publish(instancesChanged, revisions.heartbeat(storeUp));
  };
  const speak = (): void => {
    speaking = true;
    for (const owner of [replica, undefined]) {
      subscriptions.push(bus.respond(instancesList, ({ after }) => revisions.page(after, storeUp), { owner }));
    }
    subscriptions.push(
      bus.respond(instanceOrder, (order) => {
        const result = orders.give(order, live, wall());
        if (result === 'done') {
          // The followers of the other replicas first: theirs have the longer way.
          tellOrders();
          announceOrders([order.instance]);
          const { instance, kind, forMs, by, reason } = order;
          log.info({ instance: instance.slice(0, maxLoggedId), kind, forMs, by, reason }, 'instance order accepted');
        }
        return { replica, result };
      }),
    );
    log.info({ replica, instances: revisions.size }, 'instance list loaded');
  };
  /** Announces what the source has now, or what instances report of themselves. */
  const announceNew = (upserts: readonly Instance[], removals: readonly string[]): void => {
    for (const id of removals) live.delete(id);
    for (const instance of upserts) live.set(instance.id, instance);
    announceChange(upserts, removals);
  };
  await using parts = new AsyncDisposableStack();
  const models = askedModels(values, parts, {
    onChange: (upserts) => announceNew(upserts, []),
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
  });
  const status = tellStatus(bus, {
    process: replica,
    service: 'discovery',
    describe: deps.describe,
    section: () => ({
      discovery: { source: values.llmBackendDiscovery, storeUp, instances: revisions.size, orders: orders.size },
    }),
  });
  subscriptions.push(status);
  const looks =
    values.engineMetricsIntervalMs === 0
      ? null
      : parts.use(
          new EngineLooks({
            ...{ bus, metrics: deps.metrics, replica },
            intervalMs: values.engineMetricsIntervalMs,
            path: values.engineMetricsPath,
          }),
        );
  const onStep = (step: SourceStep): void => {
    const turned = step.storeUp !== storeUp;
    storeUp = step.storeUp;
    looks?.change(step.upserts, step.removals);
    announceNew(models?.change(step.upserts, step.removals) ?? step.upserts, step.removals);
    if (!speaking && storeUp) speak();
    if (turned) {
      beat();
      status.tell();
    }
  };

  const mirrorOrders = new MirrorOrders(bus, { replica, log });
  subscriptions.push(mirrorOrders);
  // Also before it answers: the orders are there when the instances are.
  subscriptions.push(
    bus.subscribe(instanceOrders, (held) => {
      if (held.replica === replica) return;
      announceOrders(orders.merge(held, wall()));
      // It has just started, and asks.
      if (held.orders.length > 0) return;
      tellOrders();
      mirrorOrders.tell();
    }),
  );
  const source = openSource(values, deps, onStep);
  const others = new OtherInstallations(ownSource, deps);
  // Followers that miss three take the replica for dead.
  const beats = eachSecond(beat);
  // Followers that were cut off together with us need not wait for the next beat.
  const greet = () => bus.publish(instanceOrders, { replica, orders: orders.all() });
  if (bus.connected) greet();
  subscriptions.push(
    bus.onStatus((connected) => {
      if (!connected) return;
      greet();
      beat();
    }),
  );
  const kept = parts.move();
  return {
    addresses: {},
    ready: () => speaking && bus.connected,
    async [Symbol.asyncDispose]() {
      beats[Symbol.dispose]();
      others[Symbol.dispose]();
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
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

/** Null when instances are not asked for their models. */
function askedModels(
  values: Settings,
  parts: AsyncDisposableStack,
  told: Pick<ConstructorParameters<typeof ReportedModels>[0], 'onChange' | 'onAway' | 'onTooMany'>,
): ReportedModels | null {
  const intervalMs = values.instanceModelsIntervalMs;
  if (intervalMs === 0) return null;
  return parts.use(new ReportedModels({ upstream: parts.use(new Upstream(limits)), intervalMs, ...told }));
}
