import { type Instance, isSameInstance } from '@llm-gateway/protocol';
import type { PodRecord, Records, StoreEvent, StoreTrouble } from '@llm-gateway/registry';
import { type Moves, moved, unmoved } from './moves.ts';

/**
 * Which of the records in a store stand for a live pod.
 *
 * Time here is *store time*: it passes only while the store is read. While the store is away it
 * stands still, and so nothing expires, neither then nor at the first look afterwards. Nor does it
 * jump when this process itself was stopped for a while.
 *
 * A record lives for one TTL from the moment its timestamp was seen to advance. The two wall
 * clocks, the writer's and ours, are compared only at the first sight of a record, where there is
 * nothing else to go by.
 *
 * When nearly all pods fall silent together, that says less about them than about the store, or
 * about the registrars' way to it: they are held, until they advance again or are deleted.
 */
export interface Liveness {
  readonly pods: ReadonlyMap<string, Pod>;
  /** Store time in milliseconds. */
  readonly storeTimeMs: number;
  /** When the store was last seen, monotonic; null before the first time. */
  readonly seenAtMs: number | null;
  readonly storeUp: boolean;
  /** Store time up to which pods that are silent are held. */
  readonly holdUntilMs: number;
  /** What the store showed of itself, with the store time at which it last did. */
  readonly troubles: ReadonlyMap<StoreTrouble, number>;
}

export interface Pod {
  readonly record: PodRecord;
  /** The record's, but an instance that did not change is the same object as before. */
  readonly instances: readonly Instance[];
  /** Store time at which its timestamp was last seen to advance. */
  readonly advancedAtMs: number;
  /** The same on the monotonic clock, which passes for the store while it is away from us. */
  readonly advancedAtRealMs: number;
  /** Store time up to which it lives unless its timestamp advances. */
  readonly liveUntilMs: number;
  readonly state: PodState;
  readonly place: Place;
  readonly moves: Moves;
}

/**
 * - `live`: in the store, and fresh.
 * - `held`: listed, but gone from the store or silent in a way that says nothing about the pod.
 * - `expired`: in the store, but stale. Not listed; remembered so that its timestamp can be seen to advance.
 */
export const podStates = ['live', 'held', 'expired'] as const;
export type PodState = (typeof podStates)[number];

/**
 * Where the record of a pod is.
 *
 * - `stored`: in the store.
 * - `lapsed`: gone, because it could not be prolonged or the store evicts. Treated as silent.
 * - `gone`: with nearly all others, or from a store that was down: perhaps not deleted.
 */
type Place = 'stored' | 'lapsed' | 'gone';

export interface Now {
  readonly monotonicMs: number;
  /** Unix time in milliseconds. */
  readonly wallMs: number;
}

export interface Pace {
  readonly ttlMs: number;
  /** Longest silence of a healthy store. */
  readonly intervalMs: number;
  /** How long a record stays in the store without being written or renewed. */
  readonly keptMs: number;
  /** Records stay by leases, and those without one until they are deleted. */
  readonly leases: boolean;
}

export interface Step {
  readonly state: Liveness;
  /** What changed in the list of instances. */
  readonly upserts: readonly Instance[];
  readonly removals: readonly string[];
}

export const unread: Liveness = {
  pods: new Map(),
  storeTimeMs: 0,
  seenAtMs: null,
  storeUp: false,
  holdUntilMs: 0,
  troubles: new Map(),
};

/** The next state after a reader's event. Pure; `pace` must be the same at every step. */
export function step(state: Liveness, event: StoreEvent, context: { readonly now: Now; readonly pace: Pace }): Step {
  if (event.kind === 'lost') return { state: { ...state, storeUp: false }, upserts: [], removals: [] };
  const { now, pace } = context;
  const { ttlMs } = pace;
  const storeTimeMs = state.storeTimeMs + elapsed(state, now, pace);
  const troubles = troublesAt(state.troubles, event.troubles, { storeTimeMs, ttlMs });
  const pods = new Map(state.pods);
  const at = { storeTimeMs, ttlMs, troubled: troubles.size > 0 };

  const records = event.kind === 'loaded' ? event.records : event.puts;
  const judge = {
    storeTimeMs,
    realMs: now.monotonicMs,
    ttlMs,
    referenceWallMs: event.kind === 'loaded' ? referenceWall(event, now) : now.wallMs,
  };
  for (const [name, record] of records) pods.set(name, seen(state.pods.get(name), record, judge));

  const missing = event.kind === 'loaded' ? [...pods.keys()].filter((name) => !records.has(name)) : event.deletes;
  if (missing.length > 0) {
    vanish(pods, missing, {
      ...at,
      emptied:
        event.kind === 'loaded'
          ? isEmptied(state.pods, missing) && !hasSurvivor(state.pods, records)
          : isEmptied(state.pods, event.deletedTogether),
      doubtful: event.kind === 'loaded' && event.doubtful,
      // Also what was evicted after the keys were last read, and counted then.
      evicting: (troubles.get('evicts') ?? -1) >= state.storeTimeMs,
      lapses: lapses({
        pace,
        realMs: judge.realMs,
        wallMs: judge.referenceWallMs,
        troubles,
        silent: storeTimeMs < state.holdUntilMs || silence(pods, at) !== 'none',
      }),
    });
  }
  const holdUntilMs = Math.max(state.holdUntilMs, holdUntil(silence(pods, at), at));
  expire(pods, { storeTimeMs, silent: storeTimeMs < holdUntilMs, troubled: at.troubled });
  return {
    state: { pods, storeTimeMs, seenAtMs: now.monotonicMs, storeUp: true, holdUntilMs, troubles },
    ...difference(state.pods, pods),
  };
}

/** The pods that are listed although the store does not vouch for them. */
export function heldPods(state: Liveness): number {
  return count(state.pods, (pod) => pod.state === 'held');
}

/** The names that two pods write, and so take each other's place. */
export function sharedNames(state: Liveness): string[] {
  return [...state.pods].flatMap(([name, { moves }]) => (moves.sharedUntilMs > state.storeTimeMs ? [name] : []));
}

/**
 * Store time since the last event. None after an outage; little after this process itself did not
 * run.
 */
function elapsed(state: Liveness, now: Now, pace: Pace): number {
  if (state.seenAtMs === null || !state.storeUp) return 0;
  return Math.min(now.monotonicMs - state.seenAtMs, Math.max(pace.ttlMs / 4, 2 * pace.intervalMs));
}

/** What the store showed within the last half TTL: registrars that are refused try again sooner. */
function troublesAt(
  before: ReadonlyMap<StoreTrouble, number>,
  shown: readonly StoreTrouble[],
  { storeTimeMs, ttlMs }: { storeTimeMs: number; ttlMs: number },
): Map<StoreTrouble, number> {
  const troubles = new Map([...before].filter(([, atMs]) => storeTimeMs - atMs < ttlMs / 2));
  for (const trouble of shown) troubles.set(trouble, storeTimeMs);
  return troubles;
}

/**
 * What time it is for whoever wrote the records: our clock or the store's, whichever is nearer to
 * the median timestamp. So one of them that is wrong has no say while most of the writers live and
 * have their clocks right. Not the newest timestamp: that is of the one writer whose clock is the
 * fastest.
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
  readonly realMs: number;
  readonly ttlMs: number;
  readonly referenceWallMs: number;
}

/**
 * A pod whose record is in the store. Whether one that is listed has expired is decided later, when
 * all were seen.
 */
function seen(before: Pod | undefined, record: PodRecord, judge: Judge): Pod {
  const { storeTimeMs, ttlMs } = judge;
  const { advancedAtMs, advancedAtRealMs, liveUntilMs } = before
    ? lifeAgain(before, record, judge)
    : firstLife(record, judge);
  const state = liveUntilMs > storeTimeMs ? 'live' : (before?.state ?? 'expired');
  if (before?.record === record && before.state === state && before.place === 'stored') return before;
  const instances = before ? reuse(before, record) : record.instances;
  const moves = before
    ? moved(before.moves, { before: before.instances, now: instances, atMs: storeTimeMs, windowMs: ttlMs })
    : unmoved;
  return { record, instances, advancedAtMs, advancedAtRealMs, liveUntilMs, state, place: 'stored', moves };
}

type Life = Pick<Pod, 'advancedAtMs' | 'advancedAtRealMs' | 'liveUntilMs'>;

function lifeAgain(before: Pod, record: PodRecord, judge: Judge): Life {
  const advancedMs = record.timestampMs - before.record.timestampMs;
  if (advancedMs > 0) return life(0, judge);
  // A clock that was set back, or another writer's: nothing to compare with.
  if (advancedMs < 0) return firstLife(record, judge);
  return before;
}

function firstLife(record: PodRecord, judge: Judge): Life {
  // The lease says that its writer lives, whatever the clocks say; should it only seem to, it has
  // one TTL to prove it.
  const ageMs = record.leased ? 0 : Math.max(0, judge.referenceWallMs - record.timestampMs);
  return life(ageMs, judge);
}

function life(ageMs: number, { storeTimeMs, realMs, ttlMs }: Judge): Life {
  const advancedAtMs = storeTimeMs - ageMs;
  return { advancedAtMs, advancedAtRealMs: realMs - ageMs, liveUntilMs: advancedAtMs + ttlMs };
}

/**
 * More than this share of the pods that are listed is nearly all of them. A larger one does not end
 * at once; a few may have registered again before the store is next looked at, or still reach a
 * store that the others do not.
 */
const nearlyAll = 0.75;
/** One pod that vanishes or falls silent is one pod that ended, also where it is the only one. */
const several = 2;

/**
 * Whether pods that go at once look like a store that was emptied rather than like pods that ended:
 * several, and nearly all that were there.
 */
function isEmptied(before: ReadonlyMap<string, Pod>, goneAtOnce: readonly string[]): boolean {
  const isThere = (pod: Pod | undefined) => isListed(pod) && pod.place === 'stored';
  const gone = goneAtOnce.filter((name) => isThere(before.get(name))).length;
  return gone >= several && gone > nearlyAll * count(before, isThere);
}

/**
 * Whether a record is as it was: whoever emptied the store would have taken it, too. Those that
 * register again write a new timestamp.
 */
function hasSurvivor(before: ReadonlyMap<string, Pod>, records: Records): boolean {
  for (const [name, { timestampMs }] of records) {
    if (before.get(name)?.record.timestampMs === timestampMs) return true;
  }
  return false;
}

/**
 * Whether nearly all pods are silent together. `begins`: none of them advanced for half a TTL.
 * `lasts`: nor for a whole one. A pod is no fewer than `several` of them, unless the store itself
 * shows why: then the only one there is counts, too.
 */
function silence(
  pods: ReadonlyMap<string, Pod>,
  { storeTimeMs, ttlMs, troubled }: { storeTimeMs: number; ttlMs: number; troubled: boolean },
): 'none' | 'begins' | 'lasts' {
  let listed = 0;
  let quiet = 0;
  let silent = 0;
  for (const pod of pods.values()) {
    // Those that are gone from a store that is well were believed to be for one TTL; nothing more
    // can be said of them.
    if (!isListed(pod) || (pod.place === 'gone' && !troubled)) continue;
    const silentMs = pod.place === 'stored' ? storeTimeMs - pod.advancedAtMs : ttlMs;
    listed++;
    if (silentMs >= ttlMs / 2) quiet++;
    if (silentMs >= ttlMs) silent++;
  }
  const together = (some: number) => some >= (troubled ? 1 : several) && some > nearlyAll * listed;
  return together(silent) ? 'lasts' : together(quiet) ? 'begins' : 'none';
}

/**
 * Up to when the silent are held. When the others advance again, the rest gets the time of a few
 * heartbeats to follow.
 */
function holdUntil(
  kind: 'none' | 'begins' | 'lasts',
  { storeTimeMs, ttlMs }: { storeTimeMs: number; ttlMs: number },
): number {
  // Not longer than that for a silence that has only begun: with heartbeats that come every half
  // TTL there is often one.
  if (kind === 'begins') return storeTimeMs + ttlMs / 4;
  return kind === 'lasts' ? storeTimeMs + ttlMs : 0;
}

/** Whether a record that is gone ran out in a silence, rather than being deleted. */
function lapses(context: {
  readonly pace: Pace;
  readonly realMs: number;
  readonly wallMs: number;
  readonly silent: boolean;
  readonly troubles: ReadonlyMap<StoreTrouble, number>;
}): (pod: Pod) => boolean {
  const { pace, realMs, wallMs, silent, troubles } = context;
  // It was written somewhat before it was seen, and a lease is renewed before that.
  const keptMs = pace.keptMs - Math.max(2 * pace.intervalMs, pace.ttlMs / 4);
  return ({ record, advancedAtRealMs }) => {
    if (!silent) return false;
    // An etcd without space goes on renewing leases: one that ran out there is of a registrar that ended.
    if (pace.leases && (!record.leased || troubles.has('no_space'))) return false;
    // Where the clocks agree, its timestamp says better how old it is: a reader may be late to see it.
    return Math.max(realMs - advancedAtRealMs, wallMs - record.timestampMs) >= keptMs;
  };
}

/** Removes pods that are gone from the store, or holds them if they may not have been deleted. */
function vanish(
  pods: Map<string, Pod>,
  missing: readonly string[],
  context: {
    readonly storeTimeMs: number;
    readonly ttlMs: number;
    readonly emptied: boolean;
    readonly doubtful: boolean;
    readonly evicting: boolean;
    readonly lapses: (pod: Pod) => boolean;
  },
): void {
  const { storeTimeMs, ttlMs, emptied, doubtful, evicting } = context;
  for (const name of missing) {
    const pod = pods.get(name);
    // What is gone and held already is neither removed nor held longer.
    if (pod?.place !== 'stored') continue;
    if (pod.state === 'expired') pods.delete(name);
    else if (evicting || context.lapses(pod)) pods.set(name, { ...pod, state: 'held', place: 'lapsed' });
    else if (emptied || doubtful) {
      const isSilent = pod.state === 'held';
      const liveUntilMs = doubtful || isSilent ? Math.max(pod.liveUntilMs, storeTimeMs + ttlMs) : pod.liveUntilMs;
      pods.set(name, { ...pod, liveUntilMs, state: 'held', place: 'gone' });
    } else pods.delete(name);
  }
}

/** Ends or holds the pods whose time is over. */
function expire(
  pods: Map<string, Pod>,
  { storeTimeMs, silent, troubled }: { storeTimeMs: number; silent: boolean; troubled: boolean },
): void {
  for (const [name, pod] of pods) {
    if (pod.liveUntilMs > storeTimeMs || pod.state === 'expired') continue;
    if (silent && (pod.place !== 'gone' || troubled)) {
      if (pod.state !== 'held') pods.set(name, { ...pod, state: 'held' });
    } else if (pod.place === 'stored') pods.set(name, { ...pod, state: 'expired' });
    else pods.delete(name);
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
