import { type Instance, roles } from '@llm-gateway/protocol';
import { maxPodNameLength, openStoreReader, readStaticEndpoints, skipReasons } from '@llm-gateway/registry';
import type { CollectSeries, Parts } from '@llm-gateway/runtime';
import { type PodState, podStates, step, unread } from './liveness.ts';
import type { Settings } from './options.ts';

/** What changed in the list of instances, and whether the store is there. */
export interface SourceStep {
  readonly upserts: readonly Instance[];
  readonly removals: readonly string[];
  readonly storeUp: boolean;
}

type Part = Pick<Parts, 'log' | 'metrics'>;

/** Where the instances come from: a store, or the list of the flags. Tells of each step until it is disposed of. */
export function openSource(values: Settings, part: Part, onStep: (step: SourceStep) => void): AsyncDisposable {
  return values.llmBackendDiscovery === 'endpoints' ? openList(values, part, onStep) : openStore(values, part, onStep);
}

function openList(values: Settings, { metrics }: Part, onStep: (step: SourceStep) => void): AsyncDisposable {
  const read = readStaticEndpoints(values.llmBackendEndpoints, { kvPorts: values.pdDisaggProtocol !== '' });
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
  const startedMs = performance.now();
  let state = unread;
  /** Why the store is away was logged; it is tried again every second or so. */
  let told = false;
  declareState(metrics, {
    storeUp: () => state.storeUp,
    stalenessS: () => (performance.now() - (state.seenAtMs ?? startedMs)) / 1000,
    eachInstance(count) {
      for (const pod of state.pods.values()) for (const instance of pod.instances) count(instance, pod.state);
    },
  });
  const failures = metrics.counter({ name: 'store_failures_total', help: 'Failed tries to read or write the store' });
  const skips = metrics.counter({
    name: 'records_skipped_total',
    help: 'Values and instances in the store that do not count',
    labels: ['reason'],
  });
  for (const reason of skipReasons) skips.labels({ reason });

  const reader = openStoreReader(values, {
    onEvent(event) {
      const now = { monotonicMs: performance.now(), wallMs: Date.now() };
      const next = step(state, event, { now, pace: reader });
      if (told && next.state.storeUp) log.info('the store is back');
      told &&= !next.state.storeUp;
      state = next.state;
      onStep({ upserts: next.upserts, removals: next.removals, storeUp: state.storeUp });
    },
    onSkipped(reason, pod) {
      skips.labels({ reason }).inc();
      log.warn({ reason, pod: pod.slice(0, maxPodNameLength) }, 'a discovery record does not count');
    },
    onFailure(error) {
      failures.inc();
      if (!told && !state.storeUp) {
        told = true;
        log.warn({ err: error }, 'the store does not answer; the list is kept, trying on');
      }
    },
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
    help: 'Time since the list of instances was last known to be that of the store',
    collect: () => state.stalenessS(),
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
