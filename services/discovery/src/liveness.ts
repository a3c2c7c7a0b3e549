import { type Instance, isSameInstance } from '@llm-gateway/protocol';
import type { PodRecord, Records, StoreEvent } from '@llm-gateway/registry';

/**
 * Which of the records in a store stand for a live pod.
 *
 * Time here is *store time*: it passes only while the store is read. While the store is away it stands still, and so nothing
 * expires, neither then nor at the first look afterwards. Nor does it jump when this process itself was stopped for a while.
 *
 * A record lives for one TTL from the moment its timestamp was seen to advance. The two wall clocks, the writer's and ours,
 * are compared only at the first sight of a record, where there is nothing else to go by.
 */
export interface Liveness {
  readonly pods: ReadonlyMap<string, Pod>;
  /** Store time in milliseconds. */
  readonly storeTimeMs: number;
  /** When the store was last seen, monotonic; null before the first time. */
  readonly seenAtMs: number | null;
  readonly storeUp: boolean;
}

interface Pod {
  readonly record: PodRecord;
  /** The record's, but an instance that did not change is the same object as before. */
  readonly instances: readonly Instance[];
  /** Store time up to which it lives unless its timestamp advances. */
  readonly liveUntilMs: number;
  readonly state: PodState;
}

/**
 * - `live`: in the store, and fresh.
 * - `held`: listed, but gone from the store together with nearly all others, or while the store was away: perhaps not deleted.
 * - `expired`: in the store, but stale. Not listed; remembered so that its timestamp can be seen to advance.
 */
export const podStates = ['live', 'held', 'expired'] as const;
export type PodState = (typeof podStates)[number];

export interface Now {
  readonly monotonicMs: number;
  /** Unix time in milliseconds. */
  readonly wallMs: number;
}

export interface Pace {
  readonly ttlMs: number;
  /** How often a store that is well is heard of, at the least. */
  readonly intervalMs: number;
}

export interface Step {
  readonly state: Liveness;
  /** What changed in the list of instances. */
  readonly upserts: readonly Instance[];
  readonly removals: readonly string[];
}

export const unread: Liveness = { pods: new Map(), storeTimeMs: 0, seenAtMs: null, storeUp: false };

/** The next state after what a reader said. Pure; `pace` must be the same at every step. */
export function step(state: Liveness, event: StoreEvent, context: { readonly now: Now; readonly pace: Pace }): Step {
  if (event.kind === 'lost') return { state: { ...state, storeUp: false }, upserts: [], removals: [] };
  const { now, pace } = context;
  const storeTimeMs = state.storeTimeMs + elapsed(state, now, pace);
  const pods = new Map(state.pods);

  if (event.kind === 'loaded') {
    const judge = { storeTimeMs, ttlMs: pace.ttlMs, referenceWallMs: referenceWall(event, now) };
    for (const [name, record] of event.records) pods.set(name, seen(state.pods.get(name), record, judge));
    const missing = [...pods.keys()].filter((name) => !event.records.has(name));
    const emptied = isEmptied(state.pods, missing) && !hasSurvivor(state.pods, event.records);
    vanish(pods, missing, { emptied, holdUntilMs: event.doubtful ? storeTimeMs + pace.ttlMs : null });
  } else {
    const judge = { storeTimeMs, ttlMs: pace.ttlMs, referenceWallMs: now.wallMs };
    for (const [name, record] of event.puts) pods.set(name, seen(state.pods.get(name), record, judge));
    vanish(pods, event.deletes, { emptied: isEmptied(state.pods, event.deletedTogether), holdUntilMs: null });
  }
  for (const [name, pod] of pods) {
    if (pod.liveUntilMs > storeTimeMs || pod.state === 'expired') continue;
    if (pod.state === 'held') pods.delete(name);
    else pods.set(name, { ...pod, state: 'expired' });
  }
  return {
    state: { pods, storeTimeMs, seenAtMs: now.monotonicMs, storeUp: true },
    ...difference(state.pods, pods),
  };
}

/** Store time since the last event. None after an outage; little after this process itself did not run. */
function elapsed(state: Liveness, now: Now, pace: Pace): number {
  if (state.seenAtMs === null || !state.storeUp) return 0;
  return Math.min(now.monotonicMs - state.seenAtMs, Math.max(pace.ttlMs / 4, 2 * pace.intervalMs));
}

/**
 * What time it is for whoever wrote the records: our clock or the store's, whichever is nearer to the median timestamp. So
 * one of them that is wrong has no say while most of the writers live and have their clocks right. Not the newest timestamp:
 * that is of the one writer whose clock is the fastest.
 */
function referenceWall(event: { records: Records; storeWallMs: number | null }, now: Now): number {
  const { storeWallMs } = event;
  if (storeWallMs === null) return now.wallMs;
  const timestampsMs = Float64Array.from(event.records.values(), ({ timestampMs }) => timestampMs).sort();
  const medianMs = timestampsMs[(timestampsMs.length - 1) >> 1] ?? now.wallMs;
  return Math.abs(storeWallMs - medianMs) < Math.abs(now.wallMs - medianMs) ? storeWallMs : now.wallMs;
}

interface Judge {
  readonly storeTimeMs: number;
  readonly ttlMs: number;
  readonly referenceWallMs: number;
}

/** A pod whose record is in the store. */
function seen(before: Pod | undefined, record: PodRecord, judge: Judge): Pod {
  const liveUntilMs = before ? lifeAgain(before, record, judge) : firstLife(record, judge);
  const state = liveUntilMs > judge.storeTimeMs ? 'live' : 'expired';
  if (before?.record === record && before.state === state && before.liveUntilMs === liveUntilMs) return before;
  return { record, instances: before ? reuse(before, record) : record.instances, liveUntilMs, state };
}

function lifeAgain(before: Pod, record: PodRecord, judge: Judge): number {
  const advancedMs = record.timestampMs - before.record.timestampMs;
  if (advancedMs > 0) return judge.storeTimeMs + judge.ttlMs;
  // A clock that was set back, or another writer's: nothing to compare with.
  if (advancedMs < 0) return firstLife(record, judge);
  return before.liveUntilMs;
}

function firstLife(record: PodRecord, { storeTimeMs, ttlMs, referenceWallMs }: Judge): number {
  // The lease says that its writer lives, whatever the clocks say; should it only seem to, it has one TTL to prove it.
  const ageMs = record.leased ? 0 : Math.max(0, referenceWallMs - record.timestampMs);
  return storeTimeMs + ttlMs - ageMs;
}

/** A larger share of the live pods does not end at once; a few may have registered again before the store is next looked at. */
const largestScaleDown = 0.75;

/** Whether pods that go at once look like a store that was emptied rather than like pods that ended: several, and nearly all that lived. */
function isEmptied(before: ReadonlyMap<string, Pod>, goneAtOnce: readonly string[]): boolean {
  const gone = goneAtOnce.filter((name) => before.get(name)?.state === 'live').length;
  return gone > 1 && gone > largestScaleDown * count(before, ({ state }) => state === 'live');
}

/** Whether a record is as it was: whoever emptied the store would have taken it, too. Those that register again write a new timestamp. */
function hasSurvivor(before: ReadonlyMap<string, Pod>, records: Records): boolean {
  for (const [name, { timestampMs }] of records) {
    if (before.get(name)?.record.timestampMs === timestampMs) return true;
  }
  return false;
}

/** Removes pods that are gone from the store, or holds them: while they are fresh when it was `emptied`, up to `holdUntilMs` when it may have lost them. */
function vanish(
  pods: Map<string, Pod>,
  missing: readonly string[],
  { emptied, holdUntilMs }: { emptied: boolean; holdUntilMs: number | null },
): void {
  for (const name of missing) {
    const pod = pods.get(name);
    // What is held already is neither removed nor held longer.
    if (!pod || pod.state === 'held') continue;
    if (pod.state === 'live' && (emptied || holdUntilMs !== null)) {
      const liveUntilMs = Math.max(pod.liveUntilMs, holdUntilMs ?? 0);
      pods.set(name, { ...pod, liveUntilMs, state: 'held' });
    } else {
      pods.delete(name);
    }
  }
}

function isListed(pod: Pod | undefined): pod is Pod {
  return pod !== undefined && pod.state !== 'expired';
}

function count(pods: ReadonlyMap<string, Pod>, test: (pod: Pod) => boolean): number {
  let matching = 0;
  for (const pod of pods.values()) if (test(pod)) matching++;
  return matching;
}

function reuse(before: Pod, record: PodRecord): readonly Instance[] {
  if (before.record === record) return before.instances;
  const known = new Map(before.instances.map((instance) => [instance.id, instance]));
  return record.instances.map((instance) => {
    const old = known.get(instance.id);
    return old && isSameInstance(old, instance) ? old : instance;
  });
}

/** Ids never collide between pods: they begin with the pod's name and end in the rank. */
function difference(
  before: ReadonlyMap<string, Pod>,
  after: ReadonlyMap<string, Pod>,
): { upserts: Instance[]; removals: string[] } {
  const upserts: Instance[] = [];
  const removals: string[] = [];
  const compare = (old: Pod | undefined, next: Pod | undefined): void => {
    if (old === next) return;
    const olds = new Map(listedInstances(old).map((instance) => [instance.id, instance]));
    for (const instance of listedInstances(next)) {
      if (olds.get(instance.id) !== instance) upserts.push(instance);
      olds.delete(instance.id);
    }
    removals.push(...olds.keys());
  };
  for (const [name, pod] of after) compare(before.get(name), pod);
  for (const [name, pod] of before) if (!after.has(name)) compare(pod, undefined);
  return { upserts, removals };
}

function listedInstances(pod: Pod | undefined): readonly Instance[] {
  return isListed(pod) ? pod.instances : [];
}
