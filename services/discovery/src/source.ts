import { type Instance, roles } from '@llm-gateway/protocol';
import {
  failureReason,
  failureReasons,
  maxPodNameLength,
  openStoreReader,
  readNetworks,
  readStaticInstances,
  skipReasons,
  storeTroubles,
} from '@llm-gateway/registry';
import type { CollectSeries, Parts } from '@llm-gateway/runtime';
import { heldPods, type PodState, podStates, sharedNames, step, unread } from './liveness.ts';
import { Notices } from './notices.ts';
import type { Settings } from './options.ts';

/** What changed in the list of instances, and whether the store is there. */
export interface SourceStep {
  readonly upserts: readonly Instance[];
  readonly removals: readonly string[];
  readonly storeUp: boolean;
}

type Part = Pick<Parts, 'log' | 'metrics'>;

/**
 * Where the instances come from: a store, or the list of the flags. Tells of each step until it is
 * disposed of.
 */
export function openSource(values: Settings, part: Part, onStep: (step: SourceStep) => void): AsyncDisposable {
  return values.llmBackendDiscovery === 'endpoints' ? openList(values, part, onStep) : openStore(values, part, onStep);
}

function openList(values: Settings, { metrics }: Part, onStep: (step: SourceStep) => void): AsyncDisposable {
  const read = readStaticInstances(values.llmBackendEndpoints, { kvPorts: values.pdDisaggProtocol !== '' });
  // The flags were checked with the same function.
  if ('mistake' in read) throw new Error(read.mistake);
  const { instances } = read;
  declareState(metrics, {
    storeUp: () => true,
    stalenessS: () => 0,
    eachInstance(count) {
      for (const instance of instances) count(instance, 'live');
    },
  });
  onStep({ upserts: instances, removals: [], storeUp: true });
  return { async [Symbol.asyncDispose]() {} };
}

function openStore(values: Settings, { log, metrics }: Part, onStep: (step: SourceStep) => void): AsyncDisposable {
  const networks = readNetworks(values.instanceNetworks);
  // The flag was validated with the same function.
  if ('mistake' in networks) throw new Error(networks.mistake);
  const startedMs = performance.now();
  let state = unread;
  const notices = new Notices(log);
  declareState(metrics, {
    storeUp: () => state.storeUp,
    stalenessS: () => (performance.now() - (state.seenAtMs ?? startedMs)) / 1000,
    eachInstance(count) {
      for (const pod of state.pods.values()) for (const instance of pod.instances) count(instance, pod.state);
    },
  });
  metrics.gauge({
    name: 'shared_pod_names',
    help: 'Pod names that two pods use, so that each overwrites the record of the other',
    collect: () => sharedNames(state).length,
  });
  metrics.gauge({
    name: 'store_trouble',
    help: '1 while the store showed within the last half TTL that it refuses writes or evicts keys',
    labels: ['trouble'],
    collect(set) {
      for (const trouble of storeTroubles) set({ trouble }, Number(state.troubles.has(trouble)));
    },
  });
  const failures = metrics.counter({
    name: 'store_failures_total',
    help: 'Failed attempts to read or write the store',
    labels: ['reason'],
  });
  for (const reason of failureReasons) failures.labels({ reason });
  const skips = metrics.counter({
    name: 'records_skipped_total',
    help: 'Invalid values and instances in the store, skipped',
    labels: ['reason'],
  });
  for (const reason of skipReasons) skips.labels({ reason });

  const reader = openStoreReader(values, {
    onEvent(event) {
      const now = { monotonicMs: performance.now(), wallMs: Date.now() };
      const next = step(state, event, { now, pace: reader });
      state = next.state;
      notices.onState({
        storeUp: state.storeUp,
        held: heldPods(state),
        troubles: state.troubles,
        shared: sharedNames(state),
      });
      onStep({ upserts: next.upserts, removals: next.removals, storeUp: state.storeUp });
    },
    onSkipped(reason, pod) {
      skips.labels({ reason }).inc();
      log.warn({ reason, pod: pod.slice(0, maxPodNameLength) }, 'discovery record cannot be used; skipped');
    },
    onFailure(error) {
      const reason = failureReason(error);
      failures.labels({ reason }).inc();
      notices.onFailure(error, reason);
    },
    allows: networks.allows,
  });
  return reader;
}

function declareState(
  metrics: Part['metrics'],
  state: {
    storeUp(): boolean;
    stalenessS(): number;
    eachInstance(count: (instance: Instance, state: PodState) => void): void;
  },
): void {
  metrics.gauge({ name: 'store_up', help: '1 while the store answers', collect: () => Number(state.storeUp()) });
  metrics.gauge({
    name: 'store_staleness_seconds',
    help: 'Time since the instance list last matched the store',
    collect: () => state.stalenessS(),
  });
  metrics.gauge({
    name: 'instances_held',
    help: 'Instances that are announced although the store does not confirm them',
    collect() {
      let held = 0;
      state.eachInstance((_, podState) => {
        if (podState === 'held') held++;
      });
      return held;
    },
  });
  const collect: CollectSeries<'role' | 'state'> = (set) => {
    const counts = new Map<string, number>();
    state.eachInstance((instance, podState) => {
      for (const role of instance.roles) {
        const key = `${role} ${podState}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    });
    for (const role of roles) {
      for (const podState of podStates) set({ role, state: podState }, counts.get(`${role} ${podState}`) ?? 0);
    }
  };
  metrics.gauge({
    name: 'instances',
    help: 'Instances by role and state; live and held ones are announced, expired ones are not',
    labels: ['role', 'state'],
    collect,
  });
}
