import type { Instance, InstancesChange, InstancesPage } from '@llm-gateway/protocol';

/**
 * Which replica of discovery to believe, as a pure state machine; `follow.ts` connects it to a bus.
 *
 * It follows one replica at a time, because revisions of two replicas cannot be compared. A failure
 * never takes the list away: until another list arrived that is at least as good, the old one
 * stays.
 */

export interface FollowerState {
  /** The replica that is followed; null before the first list. */
  readonly replica: string | null;
  readonly revision: number;
  readonly storeUp: boolean;
  readonly heardMs: number;
  /**
   * Whether the list held is that of `replica` at `revision`, so that its changes apply. Not so
   * when a list taken from a replica that had its store was kept over that of one that has not: the
   * latter may be empty only because it never reached the store.
   */
  readonly applies: boolean;
  /** Whether the list held came from a replica that had its store. */
  readonly trusted: boolean;
  /**
   * Whether a list is held that is not merely empty for want of a store. Once true it stays true.
   */
  readonly synced: boolean;
  /** What each replica said last, the followed one included. */
  readonly heard: ReadonlyMap<string, { readonly storeUp: boolean; readonly heardMs: number }>;
  readonly listing: Listing | null;
  /** When to ask for a list again after `failures` failures in a row; null: nothing is wanted. */
  readonly retryMs: number | null;
  readonly failedMs: number;
  readonly failures: number;
}

/** A list that is being asked for, page by page. One at a time. */
interface Listing {
  readonly owner: string | null;
  readonly replica: string | null;
  readonly revision: number;
  readonly instances: readonly Instance[];
  readonly restarts: number;
  /** Changes that arrived meanwhile; those newer than the list are applied after it. */
  readonly kept: readonly InstancesChange[];
}

export type FollowerEvent =
  | { readonly type: 'changed'; readonly message: InstancesChange }
  | { readonly type: 'page'; readonly page: InstancesPage }
  | { readonly type: 'failed' }
  | { readonly type: 'connected' }
  | { readonly type: 'tick' };

export type FollowerEffect =
  | {
      readonly type: 'list';
      readonly owner: string | null;
      readonly after: string | undefined;
      readonly why: ListCause;
    }
  | { readonly type: 'reset'; readonly instances: readonly Instance[] }
  | { readonly type: 'change'; readonly upserts: readonly Instance[]; readonly removals: readonly string[] };

/**
 * `start`: none is held or the last try failed; `gap`: a change was missed; `silent`: heartbeats
 * are missing; `store`: another replica has the store; `page`: a further page.
 */
export type ListCause = 'start' | 'gap' | 'silent' | 'store' | 'page';

export interface Step {
  readonly state: FollowerState;
  readonly effects: readonly FollowerEffect[];
}

export interface FollowerClock {
  readonly nowMs: number;
  /** In [0, 1). */
  readonly random: number;
  /** Longest interval between two messages of a replica. */
  readonly heartbeatMs: number;
}

const missedHeartbeats = 3.5;
const retryBaseMs = 200;
const retryMaxMs = 5_000;
const maxRestarts = 5;
/** Above it the oldest go, which shows as a gap and ends in a new list. */
const maxKept = 1_000;

export function initialFollower(nowMs: number): FollowerState {
  return {
    replica: null,
    revision: 0,
    storeUp: false,
    heardMs: nowMs,
    applies: false,
    trusted: false,
    synced: false,
    heard: new Map(),
    listing: null,
    retryMs: nowMs,
    failedMs: 0,
    failures: 0,
  };
}

export function step(state: FollowerState, event: FollowerEvent, clock: FollowerClock): Step {
  switch (event.type) {
    case 'changed':
      return onChanged(state, event.message, clock);
    case 'page':
      return onPage(state, event.page, clock);
    case 'failed':
      return onFailed(state, clock);
    case 'connected':
      return state.retryMs === null ? still(state) : list({ ...state, failures: 0 }, bestOwner(state, clock), 'start');
    case 'tick':
      return onTick(state, clock);
  }
}

/**
 * When the next `tick` is due if nothing comes before; null: the list that is asked for comes
 * first.
 */
export function tickDueMs(state: FollowerState, heartbeatMs: number): number | null {
  if (state.listing !== null) return null;
  return state.retryMs ?? state.heardMs + missedHeartbeats * heartbeatMs;
}

function onTick(state: FollowerState, clock: FollowerClock): Step {
  if (state.listing !== null) return still(state);
  if (state.retryMs !== null) {
    return clock.nowMs < state.retryMs ? still(state) : list(state, bestOwner(state, clock), 'start');
  }
  return isFresh(state.heardMs, clock) ? still(state) : list(state, bestOwner(state, clock), 'silent');
}

function onChanged(before: FollowerState, message: InstancesChange, clock: FollowerClock): Step {
  const state = hear(before, message, clock);
  if (state.listing !== null) {
    const kept = [...state.listing.kept, message].slice(-maxKept);
    return still({ ...state, listing: { ...state.listing, kept } });
  }
  if (message.replica === state.replica) return onFollowed(state, message, clock);
  const isBetter = state.replica === null || (message.storeUp && !state.storeUp);
  return isBetter ? listUnlessFailed(state, message.replica, 'store') : still(state);
}

/** A message of the replica that is followed. */
function onFollowed(before: FollowerState, message: InstancesChange, clock: FollowerClock): Step {
  const { replica, storeUp, revision } = message;
  const state: FollowerState = { ...before, heardMs: clock.nowMs, storeUp };
  if (!state.applies) {
    if (storeUp) return listUnlessFailed(state, replica, 'store');
    return leaveWithoutStore({ ...state, revision, retryMs: null }, clock);
  }
  if (message.previous !== state.revision) {
    // A late copy of what the list already held. A heartbeat (of a revision that is not ours) is never that.
    if (revision <= state.revision && message.previous < revision) return still(state);
    return listUnlessFailed(state, storeUp ? replica : bestOwner(state, clock), 'gap', [message]);
  }
  const { upserts, removals } = message;
  const current: FollowerState = {
    ...state,
    revision,
    trusted: state.trusted || storeUp,
    synced: state.synced || storeUp || upserts.length > 0,
    // Whatever a list was wanted for, nothing is missing now.
    retryMs: null,
    failures: 0,
  };
  const change: FollowerEffect[] =
    upserts.length + removals.length === 0 ? [] : [{ type: 'change', upserts, removals }];
  const next = leaveWithoutStore(current, clock);
  return { state: next.state, effects: [...change, ...next.effects] };
}

function leaveWithoutStore(state: FollowerState, clock: FollowerClock): Step {
  if (state.storeUp) return still(state);
  const better = bestOwner(state, clock);
  return better === null ? still(state) : list(state, better, 'store');
}

function onPage(before: FollowerState, page: InstancesPage, clock: FollowerClock): Step {
  const { listing } = before;
  if (listing === null) return still(before);
  const state = hear(before, page, clock);
  const isFirst = listing.replica === null;
  if (!isFirst && (page.replica !== listing.replica || page.revision !== listing.revision)) {
    if (listing.restarts >= maxRestarts) return onFailed(state, clock);
    const again = list(state, page.replica, 'page', listing.kept);
    return { ...again, state: restarted(again.state, listing.restarts + 1) };
  }
  const instances = [...listing.instances, ...page.instances];
  if (!page.more) return onList({ ...state, listing: null }, { ...page, instances }, { kept: listing.kept, clock });
  const last = page.instances.at(-1);
  // More, but nothing to go on from.
  if (last === undefined) return onFailed(state, clock);
  return {
    state: { ...state, listing: { ...listing, replica: page.replica, revision: page.revision, instances } },
    effects: [{ type: 'list', owner: page.replica, after: last.id, why: 'page' }],
  };
}

/** A whole list arrived. */
function onList(
  state: FollowerState,
  page: InstancesPage,
  { kept, clock }: { readonly kept: readonly InstancesChange[]; readonly clock: FollowerClock },
): Step {
  if (!page.storeUp) {
    // Each replica is asked once at most: what it answered is what is known of it now.
    const better = bestOwner(state, clock);
    if (better !== null) return list(state, better, 'store', kept);
  }
  const isSame = state.applies && page.replica === state.replica && page.revision === state.revision;
  const applies = page.storeUp || !state.trusted;
  const listed: FollowerState = {
    ...state,
    replica: page.replica,
    revision: page.revision,
    storeUp: page.storeUp,
    heardMs: clock.nowMs,
    applies: applies || isSame,
    trusted: state.trusted || page.storeUp,
    synced: state.synced || page.storeUp || page.instances.length > 0,
    retryMs: null,
    failures: 0,
  };
  const effects: FollowerEffect[] = applies && !isSame ? [{ type: 'reset', instances: page.instances }] : [];
  const newer = kept.filter(({ replica, revision }) => replica === page.replica && revision > page.revision);
  return replay({ state: listed, effects }, newer, clock);
}

function onFailed(state: FollowerState, clock: FollowerClock): Step {
  const { listing } = state;
  if (listing === null) return still(state);
  const heard = new Map(state.heard);
  // It said that it lives, but it did not answer: ask another.
  if (listing.owner !== null) heard.delete(listing.owner);
  const ceilingMs = Math.min(retryMaxMs, retryBaseMs * 2 ** Math.min(state.failures, 10));
  const failed: FollowerState = {
    ...state,
    heard,
    listing: null,
    failures: state.failures + 1,
    failedMs: clock.nowMs,
    retryMs: clock.nowMs + ceilingMs * (0.5 + clock.random / 2),
  };
  return replay(
    still(failed),
    listing.kept.filter(({ replica }) => replica === state.replica),
    clock,
  );
}

/** What arrived during a list, after it. */
function replay(done: Step, kept: readonly InstancesChange[], clock: FollowerClock): Step {
  let { state } = done;
  const effects = [...done.effects];
  for (const message of kept) {
    const next = onChanged(state, message, clock);
    state = next.state;
    effects.push(...next.effects);
  }
  return { state, effects };
}

/**
 * Asks now, or soon when the last try failed: a replica that speaks but does not answer must not be
 * asked without a pause.
 */
function listUnlessFailed(
  state: FollowerState,
  owner: string | null,
  why: ListCause,
  kept: readonly InstancesChange[] = [],
): Step {
  if (state.retryMs === null) return list(state, owner, why, kept);
  return still({ ...state, retryMs: Math.min(state.retryMs, state.failedMs + retryBaseMs) });
}

function list(state: FollowerState, owner: string | null, why: ListCause, kept: readonly InstancesChange[] = []): Step {
  const listing: Listing = { owner, replica: null, revision: 0, instances: [], restarts: 0, kept };
  return {
    state: { ...state, listing, retryMs: null },
    effects: [{ type: 'list', owner, after: undefined, why }],
  };
}

function restarted(state: FollowerState, restarts: number): FollowerState {
  return state.listing === null ? state : { ...state, listing: { ...state.listing, restarts } };
}

function hear(
  state: FollowerState,
  { replica, storeUp }: { readonly replica: string; readonly storeUp: boolean },
  clock: FollowerClock,
): FollowerState {
  const heard = new Map(state.heard);
  for (const [other, { heardMs }] of heard) if (!isFresh(heardMs, clock)) heard.delete(other);
  heard.set(replica, { storeUp, heardMs: clock.nowMs });
  return { ...state, heard };
}

/** The replica with a store that reported last; null: let the queue group choose. */
function bestOwner(state: FollowerState, clock: FollowerClock): string | null {
  const able = [...state.heard].filter(([, { storeUp, heardMs }]) => storeUp && isFresh(heardMs, clock));
  able.sort(([, a], [, b]) => b.heardMs - a.heardMs);
  return able[0]?.[0] ?? null;
}

function isFresh(heardMs: number, { nowMs, heartbeatMs }: FollowerClock): boolean {
  return nowMs - heardMs <= missedHeartbeats * heartbeatMs;
}

function still(state: FollowerState): Step {
  return { state, effects: [] };
}
