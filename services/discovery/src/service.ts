import { randomUUID } from 'node:crypto';
import type { Bus } from '@llm-gateway/bus';
import { type Instance, instancesChanged, instancesList } from '@llm-gateway/protocol';
import { readStaticEndpoints } from '@llm-gateway/registry';
import type { Parts, Running } from '@llm-gateway/runtime';
import type { Options } from './options.ts';
import { Revisions } from './revisions.ts';

/** Followers that miss three take the replica for dead. */
const heartbeatIntervalMs = 1000;

/** Discovery: answers `list`, announces changes and heartbeats. Whoever made the bus closes it. */
export async function start(values: Options, deps: Parts & { readonly bus: Bus }): Promise<Running> {
  const { bus } = deps;
  const replica = `discovery-${randomUUID().slice(0, 8)}`;
  const revisions = new Revisions(replica);
  const storeUp = true;

  const announce = (upserts: readonly Instance[], removals: readonly string[]): void => {
    for (const message of revisions.change(upserts, removals, storeUp)) bus.publish(instancesChanged, message);
  };
  const heartbeat = (): void => {
    bus.publish(instancesChanged, revisions.heartbeat(storeUp));
  };

  const read = readStaticEndpoints(values.llmBackendEndpoints, { kvPorts: values.pdDisaggProtocol !== '' });
  if ('mistake' in read) throw new Error(read.mistake);
  announce(read.instances, []);

  await using stack = new AsyncDisposableStack();
  stack.use(bus.respond(instancesList, ({ after }) => revisions.page(after, storeUp), { owner: replica }));
  stack.use(bus.respond(instancesList, ({ after }) => revisions.page(after, storeUp)));
  // Followers that were cut off together with us need not wait for the next beat.
  stack.use(bus.onStatus((connected) => connected && heartbeat()));
  const beats = setInterval(heartbeat, heartbeatIntervalMs);
  stack.defer(() => clearInterval(beats));
  heartbeat();

  const owned = stack.move();
  return {
    addresses: {},
    ready: () => bus.connected,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
