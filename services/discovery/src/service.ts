import { randomUUID } from 'node:crypto';
import { type Bus, eachSecond, Reasons, type Subscription } from '@llm-gateway/bus';
import { type Instance, instancesChanged, instancesList } from '@llm-gateway/protocol';
import type { Parts, Running } from '@llm-gateway/runtime';
import { Upstream } from '@llm-gateway/upstream';
import type { Settings } from './options.ts';
import { OtherInstallations, sourceOf } from './other-installations.ts';
import { ReportedModels } from './reported-models.ts';
import { Revisions } from './revisions.ts';
import { openSource, type SourceStep } from './source.ts';

const maxLoggedId = 300;

/** Discovery: answers `list`, announces changes and heartbeats. Whoever made the bus closes it. */
export async function start(values: Settings, deps: Parts & { readonly bus: Bus }): Promise<Running> {
  const { bus, log } = deps;
  const replica = `discovery-${randomUUID().slice(0, 8)}`;
  const tooLarge = deps.metrics.counter({
    name: 'instances_too_large_total',
    help: 'Times an instance was not announced because its names are too long for a message',
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
  const subscriptions: Subscription[] = [];
  // Nothing is said before the store was read once: an empty list would be believed.
  let speaking = false;
  let storeUp = false;

  const beat = (): void => {
    if (speaking && bus.connected) bus.publish(instancesChanged, revisions.heartbeat(storeUp));
  };
  const speak = (): void => {
    speaking = true;
    for (const owner of [replica, undefined]) {
      subscriptions.push(bus.respond(instancesList, ({ after }) => revisions.page(after, storeUp), { owner }));
    }
    log.info({ replica, instances: revisions.size }, 'instances are known');
  };
  const announce = (upserts: readonly Instance[], removals: readonly string[]): void => {
    const messages = revisions.change(upserts, removals, storeUp);
    if (speaking) for (const message of messages) bus.publish(instancesChanged, message);
  };
  await using parts = new AsyncDisposableStack();
  const models = askedModels(values, parts, (upserts) => announce(upserts, []));
  const onStep = (step: SourceStep): void => {
    const turned = step.storeUp !== storeUp;
    storeUp = step.storeUp;
    announce(models?.change(step.upserts, step.removals) ?? step.upserts, step.removals);
    if (!speaking && storeUp) speak();
    if (turned) beat();
  };

  const source = openSource(values, deps, onStep);
  const others = new OtherInstallations(ownSource, deps);
  // Followers that miss three take the replica for dead.
  const beats = eachSecond(beat);
  // Followers that were cut off together with us need not wait for the next beat.
  subscriptions.push(bus.onStatus((connected) => connected && beat()));
  const kept = parts.move();
  return {
    addresses: {},
    ready: () => speaking && bus.connected,
    async [Symbol.asyncDispose]() {
      beats[Symbol.dispose]();
      others[Symbol.dispose]();
      for (const subscription of subscriptions) subscription.close();
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
  onChange: (upserts: readonly Instance[]) => void,
): ReportedModels | null {
  const intervalMs = values.instanceModelsIntervalMs;
  if (intervalMs === 0) return null;
  return parts.use(new ReportedModels({ upstream: parts.use(new Upstream(limits)), intervalMs, onChange }));
}
