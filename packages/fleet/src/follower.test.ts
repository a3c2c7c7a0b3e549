import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Instance, InstancesChange, InstancesPage } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { type FollowerEffect, type FollowerEvent, type FollowerState, initialFollower, step } from './follower.ts';

const heartbeatMs = 1_000;

/** A follower with a clock, and the list it tells its owner of. */
class Followed {
  nowMs = 0;
  state: FollowerState = initialFollower(0);
  readonly held = new Map<string, Instance>();
  lists: { owner: string | null; after: string | undefined; why: string }[] = [];

  tell(event: FollowerEvent): void {
    const next = step(this.state, event, { nowMs: this.nowMs, random: 0.5, heartbeatMs });
    this.state = next.state;
    for (const effect of next.effects) this.#perform(effect);
  }

  #perform(effect: FollowerEffect): void {
    if (effect.type === 'list') this.lists.push(effect);
    if (effect.type === 'reset') this.held.clear();
    const { upserts, removals } = changeOf(effect);
    for (const one of upserts) this.held.set(one.id, one);
    for (const id of removals) assert.ok(this.held.delete(id), `${id} was not held`);
  }

  /** The lists asked for since the last look. */
  asked(): { owner: string | null; why: string }[] {
    const asked = this.lists.map(({ owner, why }) => ({ owner, why }));
    this.lists = [];
    return asked;
  }

  /** Lets time pass, looking ten times a heartbeat. */
  pass(durationMs: number): void {
    for (const endMs = this.nowMs + durationMs; this.nowMs < endMs; ) {
      this.nowMs += heartbeatMs / 10;
      this.tell({ type: 'tick' });
    }
  }

  hears(message: InstancesChange): void {
    this.tell({ type: 'changed', message });
  }

  ids(): string[] {
    return [...this.held.keys()].sort();
  }
}

function changeOf(effect: FollowerEffect): { upserts: readonly Instance[]; removals: readonly string[] } {
  if (effect.type === 'reset') return { upserts: effect.instances, removals: [] };
  return effect.type === 'change' ? effect : { upserts: [], removals: [] };
}

function instance(id: string): Instance {
  return { id, roles: ['neutral'], host: '10.0.0.1', port: 1, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1, model: '' };
}

function page(replica: string, revision: number, ids: string[], more: Partial<InstancesPage> = {}): FollowerEvent {
  const whole = { replica, revision, storeUp: true, instances: ids.map(instance), more: false, ...more };
  return { type: 'page', page: whole };
}

function change(
  replica: string,
  revision: number,
  ids: string[],
  more: Partial<InstancesChange> = {},
): InstancesChange {
  const upserts = ids.map(instance);
  return { replica, revision, previous: revision - 1, storeUp: true, upserts, removals: [], ...more };
}

function beat(replica: string, revision: number, storeUp = true): InstancesChange {
  return { replica, revision, previous: revision, storeUp, upserts: [], removals: [] };
}

function following(replica: string, revision: number, ids: string[]): Followed {
  const followed = new Followed();
  followed.tell({ type: 'tick' });
  followed.tell(page(replica, revision, ids));
  followed.asked();
  return followed;
}

describe('a follower of discovery', () => {
  test('asks any replica for its list first, and takes it', () => {
    const followed = new Followed();
    assert.equal(followed.state.synced, false);
    followed.tell({ type: 'tick' });
    assert.deepEqual(followed.asked(), [{ owner: null, why: 'start' }]);
    followed.tell(page('a', 4, ['x', 'y']));
    assert.deepEqual(followed.ids(), ['x', 'y']);
    const { replica, revision, storeUp, synced } = followed.state;
    assert.deepEqual(
      { replica, revision, storeUp, synced },
      { replica: 'a', revision: 4, storeUp: true, synced: true },
    );
  });

  test('asks again and again, at growing intervals, while nobody answers', () => {
    const followed = new Followed();
    const askedMs: number[] = [];
    for (let looked = 0; looked < 600; looked++) {
      followed.pass(100);
      if (followed.asked().length === 0) continue;
      askedMs.push(followed.nowMs);
      followed.tell({ type: 'failed' });
    }
    const waits = askedMs.slice(1).map((at, index) => at - (askedMs[index] ?? 0));
    assert.ok((waits[0] ?? 0) <= 300);
    assert.ok(Math.max(...waits) <= 5_100);
    assert.ok(askedMs.length > 10);
    assert.equal(followed.state.synced, false);
  });

  test('asks at once when the bus is connected', () => {
    const followed = new Followed();
    for (let failed = 0; failed < 8; failed++) {
      followed.pass(5_000);
      followed.tell({ type: 'failed' });
    }
    followed.asked();
    followed.tell({ type: 'connected' });
    assert.deepEqual(followed.asked(), [{ owner: null, why: 'start' }]);
  });

  test('does not wait long for a replica it hears, but does not press one that never answers', () => {
    const followed = new Followed();
    for (let failed = 0; failed < 8; failed++) {
      followed.pass(5_000);
      followed.tell({ type: 'failed' });
    }
    followed.asked();
    let asked = 0;
    for (let looked = 0; looked < 100; looked++) {
      followed.hears(beat('a', 1));
      followed.pass(100);
      if (followed.asked().length === 0) continue;
      asked++;
      followed.tell({ type: 'failed' });
    }
    assert.ok(asked > 10 && asked <= 50, `${asked} lists in 10 s`);
  });

  test('applies changes in order, and ignores those of other replicas and of the past', () => {
    const followed = following('a', 4, ['x']);
    followed.hears(change('a', 5, ['y']));
    followed.hears(change('b', 6, ['of-another']));
    followed.hears(change('a', 5, ['y']));
    followed.hears(change('a', 6, [], { removals: ['x'] }));
    assert.deepEqual(followed.ids(), ['y']);
    assert.deepEqual(followed.asked(), []);
  });

  test('asks the same replica again when it missed a change, and shows it by a heartbeat too', () => {
    for (const missed of [change('a', 6, ['z']), beat('a', 6), beat('a', 3)]) {
      const followed = following('a', 4, ['x']);
      followed.hears(missed);
      assert.deepEqual(followed.asked(), [{ owner: 'a', why: 'gap' }]);
      assert.deepEqual(followed.ids(), ['x']);
      followed.tell(page('a', 6, ['x', 'y', 'z']));
      assert.deepEqual(followed.ids(), ['x', 'y', 'z']);
      followed.hears(change('a', 7, ['w']));
      assert.deepEqual(followed.ids(), ['w', 'x', 'y', 'z']);
    }
  });

  test('keeps changes that arrive during a list, and applies those that are newer than it', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    for (const [revision, id] of [
      [5, 'five'],
      [6, 'six'],
      [7, 'seven'],
    ] as const) {
      followed.hears(change('a', revision, [id]));
      followed.hears(change('b', revision, ['of-another']));
    }
    followed.tell(page('a', 5, ['x', 'five']));
    assert.deepEqual(followed.ids(), ['five', 'seven', 'six', 'x']);
    assert.equal(followed.state.revision, 7);
  });

  test('asks again when a change kept during a list does not follow the list', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    followed.hears(change('a', 9, ['nine']));
    followed.tell(page('a', 5, ['x']));
    assert.deepEqual(followed.asked().at(-1), { owner: 'a', why: 'gap' });
    followed.tell(page('a', 9, ['x', 'nine']));
    assert.deepEqual(followed.ids(), ['nine', 'x']);
  });

  test('asks the replica that gave the first page for the further ones', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    followed.tell(page('a', 4, ['x', 'y'], { more: true }));
    assert.deepEqual(followed.lists.at(-1), { type: 'list', owner: 'a', after: 'y', why: 'page' });
    assert.deepEqual(followed.ids(), []);
    followed.tell(page('a', 4, ['z']));
    assert.deepEqual(followed.ids(), ['x', 'y', 'z']);
  });

  test('begins again when the list changed between two pages, a few times, and then pauses', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    for (let revision = 1; revision <= 20 && followed.state.listing !== null; revision++) {
      followed.tell(page('a', revision, [`at-${revision}`], { more: true }));
    }
    assert.equal(followed.state.listing, null);
    assert.ok(followed.lists.length < 20);
    followed.asked();
    followed.pass(1_000);
    followed.tell(page('a', 30, ['x'], { more: true }));
    followed.tell(page('a', 31, ['y'], { more: true }));
    assert.deepEqual(followed.lists.at(-1), { type: 'list', owner: 'a', after: undefined, why: 'page' });
    followed.tell(page('a', 31, ['y'], { more: true }));
    followed.tell(page('a', 31, ['z']));
    assert.deepEqual(followed.ids(), ['y', 'z']);
  });

  test('three missed heartbeats: asks a replica that is heard, else any, and keeps its list meanwhile', () => {
    for (const other of [true, false]) {
      const followed = following('a', 4, ['x']);
      for (let second = 0; second < 3; second++) {
        if (other) followed.hears(beat('b', 70));
        followed.pass(1_000);
      }
      assert.deepEqual(followed.asked(), []);
      if (other) followed.hears(beat('b', 70));
      followed.pass(1_000);
      assert.deepEqual(followed.asked(), [{ owner: other ? 'b' : null, why: 'silent' }]);
      assert.deepEqual(followed.ids(), ['x']);
      followed.tell(page('b', 70, ['x', 'y']));
      followed.hears(change('b', 71, ['z']));
      assert.deepEqual(followed.ids(), ['x', 'y', 'z']);
    }
  });

  test('goes on with the replica when it is heard again without a gap', () => {
    const followed = following('a', 4, ['x']);
    followed.pass(4_000);
    followed.tell({ type: 'failed' });
    followed.asked();
    followed.hears(change('a', 5, ['y']));
    followed.pass(1_000);
    assert.deepEqual(followed.ids(), ['x', 'y']);
    assert.deepEqual(followed.asked(), []);
  });

  test('leaves a replica without a store for one that has it', () => {
    const followed = following('a', 4, ['x']);
    followed.hears(beat('b', 70));
    followed.hears(beat('a', 4, false));
    assert.deepEqual(followed.asked(), [{ owner: 'b', why: 'store' }]);
    followed.tell(page('b', 70, ['x', 'y']));
    assert.equal(followed.state.replica, 'b');
    assert.deepEqual(followed.ids(), ['x', 'y']);
    // Not back and forth: what has its store is good enough.
    followed.hears(beat('a', 4));
    assert.deepEqual(followed.asked(), []);
  });

  test('learns later that another replica has the store', () => {
    const followed = following('a', 4, ['x']);
    followed.hears(beat('a', 4, false));
    assert.deepEqual(followed.asked(), []);
    followed.hears(beat('b', 70, false));
    assert.deepEqual(followed.asked(), []);
    followed.hears(beat('b', 70));
    assert.deepEqual(followed.asked(), [{ owner: 'b', why: 'store' }]);
  });

  test('when nobody has the store it goes on following, and keeps the list', () => {
    const followed = following('a', 4, ['x']);
    for (let second = 0; second < 20; second++) {
      followed.hears(beat('a', 4, false));
      followed.hears(beat('b', 70, false));
      followed.pass(1_000);
    }
    assert.deepEqual(followed.asked(), []);
    assert.equal(followed.state.storeUp, false);
    assert.deepEqual(followed.ids(), ['x']);
    followed.hears(change('a', 5, ['y']));
    assert.deepEqual(followed.ids(), ['x', 'y']);
  });

  test('a replica that never reached its store does not take the list away; it is taken when it has the store', () => {
    const followed = following('a', 4, ['x', 'y']);
    followed.pass(4_000);
    followed.asked();
    followed.tell(page('new', 0, [], { storeUp: false }));
    assert.deepEqual(followed.ids(), ['x', 'y']);
    assert.equal(followed.state.replica, 'new');
    for (let second = 0; second < 5; second++) {
      followed.hears(beat('new', 0, false));
      followed.pass(1_000);
    }
    assert.deepEqual(followed.asked(), []);
    followed.hears(change('new', 1, ['x']));
    assert.deepEqual(followed.asked(), [{ owner: 'new', why: 'store' }]);
    assert.deepEqual(followed.ids(), ['x', 'y']);
    followed.tell(page('new', 2, ['x', 'z']));
    assert.deepEqual(followed.ids(), ['x', 'z']);
  });

  test('takes the list of a replica without a store when it has none better, and is not synced by an empty one', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    followed.tell(page('a', 0, [], { storeUp: false }));
    assert.equal(followed.state.synced, false);
    followed.hears(change('a', 1, ['x']));
    assert.deepEqual([followed.ids(), followed.state.synced], [['x'], true]);
    const other = new Followed();
    other.tell({ type: 'tick' });
    other.tell(page('a', 3, ['old'], { storeUp: false }));
    assert.deepEqual([other.ids(), other.state.synced], [['old'], true]);
  });

  test('asks a replica that has its store when the one that answered has not', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    followed.hears(beat('b', 70));
    followed.asked();
    followed.tell(page('a', 4, ['x'], { storeUp: false }));
    assert.deepEqual(followed.asked(), [{ owner: 'b', why: 'store' }]);
    // It lost its store meanwhile: that is what there is, and it is not asked for ever.
    followed.tell(page('b', 70, ['y'], { storeUp: false }));
    assert.deepEqual(followed.asked(), []);
    assert.deepEqual(followed.ids(), ['y']);
  });

  test('a replica that was restarted under its name is asked again', () => {
    const followed = following('a', 400, ['x']);
    followed.hears(beat('a', 0));
    assert.deepEqual(followed.asked(), [{ owner: 'a', why: 'gap' }]);
    followed.tell(page('a', 0, []));
    assert.deepEqual(followed.ids(), []);
  });

  test('keeps a bounded number of changes while a list is under way', () => {
    const followed = new Followed();
    followed.tell({ type: 'tick' });
    for (let revision = 1; revision <= 3_000; revision++) followed.hears(change('a', revision, [`at-${revision}`]));
    assert.equal(followed.state.listing?.kept.length, 1_000);
    followed.tell(page('a', 1, ['at-1']));
    assert.equal(followed.asked().at(-1)?.why, 'gap');
  });
});

/** A replica of discovery as the follower sees it: what it holds and what it last said. */
interface Replica {
  name: string;
  revision: number;
  storeUp: boolean;
  alive: boolean;
  instances: string[];
}

const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('change' as const), at: fc.nat(1), id: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lose' as const), at: fc.nat(1), id: fc.nat(9) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('kill' as const, 'start' as const), at: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('down' as const, 'up' as const), at: fc.nat(1) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('pass' as const),
      ms: fc.nat(2_000),
      answers: fc.constantFrom('at once', 'late', 'never'),
    }),
  },
);

test('whatever is lost, killed or cut off, the list is never taken away by it, and is right again soon after all is well', () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
      const followed = new Followed();
      const replicas: [Replica, Replica] = [
        { name: 'a', revision: 0, storeUp: true, alive: true, instances: ['base'] },
        { name: 'b', revision: 50, storeUp: true, alive: true, instances: ['base'] },
      ];
      let starts = 0;
      const pass = (durationMs: number, answers: string) => {
        for (let passedMs = 0; passedMs < durationMs; passedMs += 100) {
          followed.pass(100);
          if (followed.nowMs % heartbeatMs === 0) {
            for (const { name, revision, storeUp, alive } of replicas) {
              if (alive) followed.hears(beat(name, revision, storeUp));
            }
          }
          // Late: one page each 100 ms, so that changes come between them.
          do {
            if (followed.state.listing !== null) followed.tell(answer(followed, replicas, answers !== 'never'));
          } while (answers === 'at once' && followed.state.listing !== null);
        }
      };
      const change = (replica: Replica, upserts: string[], removals: string[], lost: boolean) => {
        const previous = replica.revision++;
        const { name, revision, storeUp } = replica;
        if (!replica.alive || lost) return;
        followed.hears({ replica: name, revision, previous, storeUp, upserts: upserts.map(instance), removals });
      };
      for (const one of actions) {
        const hadList = followed.held.size > 0;
        if (one.do === 'pass') {
          pass(one.ms, one.answers);
        } else {
          const replica = replicas[one.at === 0 ? 0 : 1];
          if (one.do === 'kill') replica.alive = false;
          if (one.do === 'down') replica.storeUp = false;
          if (one.do === 'up') replica.storeUp = true;
          if (one.do === 'start' && !replica.alive) {
            // A new process that has not reached its store yet.
            Object.assign(replica, {
              name: `new-${starts++}`,
              revision: 0,
              alive: true,
              storeUp: false,
              instances: [],
            });
          }
          if ((one.do === 'change' || one.do === 'lose') && replica.storeUp) {
            const id = `i${one.id}`;
            const held = replica.instances.includes(id);
            replica.instances = held ? replica.instances.filter((other) => other !== id) : [...replica.instances, id];
            change(replica, held ? [] : [id], held ? [id] : [], one.do === 'lose');
          }
        }
        // Every replica with its store holds 'base'; only a loss of information could take it away.
        if (hadList) assert.ok(followed.held.has('base'));
      }
      for (const replica of replicas) {
        replica.alive = true;
        replica.storeUp = true;
        if (!replica.instances.includes('base')) {
          replica.instances.push('base');
          change(replica, ['base'], [], false);
        }
      }
      pass(12_000, 'late');
      const followedReplica = replicas.find(({ name }) => name === followed.state.replica);
      assert.deepEqual(followed.ids(), followedReplica?.instances.toSorted());
      assert.ok(followed.state.synced && followed.state.storeUp);
    }),
    { numRuns: 500 },
  );
});

/** What the asked replica answers to the last list, page by page of two. */
function answer(followed: Followed, replicas: readonly Replica[], answered: boolean): FollowerEvent {
  const asked = followed.lists.at(-1);
  const able = replicas.filter(({ name, alive }) => alive && (asked?.owner == null || asked.owner === name));
  const [replica] = able;
  if (!answered || replica === undefined) return { type: 'failed' };
  const ids = replica.instances.toSorted().filter((id) => asked?.after === undefined || id > asked.after);
  return page(replica.name, replica.revision, ids.slice(0, 2), { storeUp: replica.storeUp, more: ids.length > 2 });
}
