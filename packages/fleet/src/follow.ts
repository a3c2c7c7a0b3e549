import type { Bus } from '@llm-gateway/bus';
import { type Instance, instancesChanged, instancesList } from '@llm-gateway/protocol';
import {
  type FollowerEffect,
  type FollowerEvent,
  initialFollower,
  type ListCause,
  step,
  tickDueMs,
} from './follower.ts';

export interface FollowOptions {
  /** Changes of the set, in order. */
  onChange(upserts: readonly Instance[], removals: readonly string[]): void;
  /** The whole set, instead of all that was said before. */
  onReset(all: readonly Instance[]): void;
  readonly observer?: FollowObserver;
  /** Interval of a replica's heartbeats; after three missed ones it is silent. */
  readonly heartbeatMs?: number;
}

export interface FollowObserver {
  /** A list is asked for, and why. */
  listing?(why: ListCause): void;
  /** It did not come; another try follows. */
  listFailed?(error: unknown): void;
}

export interface FollowedState {
  /** The replica of discovery that is followed; null before the first list. */
  readonly replica: string | null;
  readonly revision: number;
  /** Whether that replica has its store. */
  readonly storeUp: boolean;
  /** Age of its last message; before the first list, the time spent waiting. */
  readonly ageMs: number;
  /** Whether a list is held, however old. Once true it stays true. */
  readonly synced: boolean;
}

export interface Follower extends Disposable {
  state(): FollowedState;
}

const defaultHeartbeatMs = 1_000;
const listTimeoutMs = 2_000;

/**
 * Keeps a copy of the live instances by following one replica of discovery at a time: its changes
 * as they come, and its list after a gap, after three missed heartbeats, or when it lost its store
 * while another replica has it. Tries for ever, and never empties the copy because something
 * failed. Callbacks run outside this call. Dispose it before the bus.
 */
export function followInstances(bus: Bus, options: FollowOptions): Follower {
  const { onChange, onReset, observer = {}, heartbeatMs = defaultHeartbeatMs } = options;
  const stopped = new AbortController();
  let state = initialFollower(performance.now());
  let timer: { readonly atMs: number; readonly handle: NodeJS.Timeout } | null = null;

  function advance(event: FollowerEvent): void {
    if (stopped.signal.aborted) return;
    const next = step(state, event, { nowMs: performance.now(), random: Math.random(), heartbeatMs });
    state = next.state;
    for (const effect of next.effects) perform(effect);
    awaitTick();
  }

  /**
   * A heartbeat moves the time of the next tick, but not the timer: one that fires early sets
   * itself anew.
   */
  function awaitTick(): void {
    const dueMs = tickDueMs(state, heartbeatMs);
    if (stopped.signal.aborted || dueMs === null || (timer !== null && timer.atMs <= dueMs)) return;
    if (timer !== null) clearTimeout(timer.handle);
    const waitMs = Math.max(1, Math.ceil(dueMs - performance.now()));
    const handle = setTimeout(() => {
      timer = null;
      advance({ type: 'tick' });
    }, waitMs);
    timer = { atMs: dueMs, handle };
  }

  function perform(effect: FollowerEffect): void {
    switch (effect.type) {
      case 'list':
        if (effect.why !== 'page') observer.listing?.(effect.why);
        void list(effect.owner ?? undefined, effect.after);
        return;
      case 'reset':
        onReset(effect.instances);
        return;
      case 'change':
        onChange(effect.upserts, effect.removals);
        return;
    }
  }

  function list(owner: string | undefined, after: string | undefined): Promise<void> {
    const query = after === undefined ? {} : { after };
    const options = { owner, timeoutMs: listTimeoutMs, signal: stopped.signal };
    return bus.request(instancesList, query, options).then(
      (page) => advance({ type: 'page', page }),
      (error) => {
        if (!stopped.signal.aborted) observer.listFailed?.(error);
        advance({ type: 'failed' });
      },
    );
  }

  const changes = bus.subscribe(instancesChanged, (message) => advance({ type: 'changed', message }));
  const status = bus.onStatus((connected) => connected && advance({ type: 'connected' }));
  advance({ type: 'tick' });
  return {
    state: () => ({
      replica: state.replica,
      revision: state.revision,
      storeUp: state.storeUp,
      ageMs: performance.now() - state.heardMs,
      synced: state.synced,
    }),
    [Symbol.dispose]() {
      stopped.abort();
      if (timer !== null) clearTimeout(timer.handle);
      changes.close();
      status.close();
    },
  };
}
