import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import type { PodRecord, StoreEvent, StoreTrouble } from '@llm-gateway/registry';
import fc from 'fast-check';
import { heldPods, type Liveness, type Pace, type PodState, sharedNames, step, unread } from './liveness.ts';

const redisPace: Pace = { ttlMs: 60_000, intervalMs: 1000, keptMs: 120_000, leases: false };
const etcdPace: Pace = { ttlMs: 60_000, intervalMs: 1000, keptMs: 60_000, leases: true };
const noonMs = 1_700_000_000_000;

function record(name: string, timestampMs: number, change: Partial<Instance> & { leased?: boolean } = {}): PodRecord {
  const { leased = false, ...fields } = change;
  const instance: Instance = {
    id: `${name}_dp0`,
    roles: ['neutral'],
    host: '10.0.0.1',
    port: 8000,
    kvHost: '',
    kvPort: 0,
    dpRank: 0,
    dpSize: 1,
    model: '',
    ...fields,
  };
  return { timestampMs, instances: [instance], leased };
}

/** A reader and its clocks, and the list as a follower has it. */
class Replay {
  state: Liveness = unread;
  readonly listed = new Map<string, Instance>();
  /** Seconds that passed. */
  seconds = 0;
  /** How far our wall clock is off. */
  readonly skewMs: number;
  readonly storeClock: boolean;
  changes = 0;
  readonly pace: Pace;

  constructor(options: { skewMs?: number; storeClock?: boolean; pace?: Pace } = {}) {
    this.pace = options.pace ?? redisPace;
    this.skewMs = options.skewMs ?? 0;
    this.storeClock = options.storeClock ?? true;
  }

  /** The writers' and the store's wall clock. */
  get wallMs(): number {
    return noonMs + this.seconds * 1000;
  }

  event(event: StoreEvent): this {
    const now = { monotonicMs: 5_000 + this.seconds * 1000, wallMs: this.wallMs + this.skewMs };
    const { state, upserts, removals } = step(this.state, event, { now, pace: this.pace });
    this.state = state;
    for (const instance of upserts) this.listed.set(instance.id, instance);
    for (const id of removals) assert.ok(this.listed.delete(id), `${id} was removed but not listed`);
    this.changes += upserts.length + removals.length;
    return this;
  }

  loaded(
    records: Record<string, PodRecord>,
    options: { doubtful?: boolean; troubles?: readonly StoreTrouble[] } = {},
  ): this {
    const { doubtful = false, troubles = [] } = options;
    const storeWallMs = this.storeClock ? this.wallMs : null;
    return this.event({ kind: 'loaded', records: new Map(Object.entries(records)), doubtful, storeWallMs, troubles });
  }

  put(records: Record<string, PodRecord>): this {
    return this.event({
      kind: 'changed',
      puts: new Map(Object.entries(records)),
      deletes: [],
      deletedTogether: [],
      troubles: [],
    });
  }

  /** In one act. */
  deleted(...deletes: string[]): this {
    return this.event({ kind: 'changed', puts: new Map(), deletes, deletedTogether: deletes, troubles: [] });
  }

  deletedOneByOne(...deletes: string[]): this {
    return this.event({
      kind: 'changed',
      puts: new Map(),
      deletes,
      deletedTogether: deletes.slice(0, 1),
      troubles: [],
    });
  }

  lost(): this {
    return this.event({ kind: 'lost' });
  }

  /** Each second the store is read; it says what `records` returns then. */
  pass(seconds: number, records: (second: number) => Record<string, PodRecord>): this {
    for (let second = 0; second < seconds; second++) {
      this.seconds++;
      this.loaded(records(this.seconds));
    }
    return this;
  }

  /** Time in which nothing is read. */
  silence(seconds: number): this {
    this.seconds += seconds;
    return this;
  }

  names(): string[] {
    return [...this.listed.keys()].sort();
  }

  inState(state: PodState): string[] {
    return [...this.state.pods].flatMap(([name, pod]) => (pod.state === state ? [name] : [])).sort();
  }
}

test('pods join and leave with their keys', () => {
  const replay = new Replay();
  const [a, b] = [record('a', noonMs), record('b', noonMs)];
  assert.deepEqual(replay.loaded({ a }).names(), ['a_dp0']);
  assert.deepEqual(replay.pass(1, () => ({ a, b })).names(), ['a_dp0', 'b_dp0']);
  assert.deepEqual(replay.pass(1, () => ({ b })).names(), ['b_dp0']);
  assert.deepEqual(replay.pass(1, () => ({})).names(), [], 'a single pod that leaves is no emptied store');
});

test('a heartbeat changes nothing in the list', () => {
  const replay = new Replay().loaded({ a: record('a', noonMs) });
  replay.pass(30, (second) => ({ a: record('a', noonMs + second * 1000) }));
  assert.equal(replay.changes, 1);
});

test('a pod with a new address under its old name replaces it', () => {
  const replay = new Replay().loaded({ a: record('a', noonMs) });
  replay.pass(1, () => ({ a: record('a', noonMs + 500, { host: '10.0.0.2' }) }));
  assert.equal(replay.listed.get('a_dp0')?.host, '10.0.0.2');
  replay.pass(1, () => ({ a: record('a', noonMs + 500, { host: '10.0.0.3' }) }));
  assert.equal(replay.listed.get('a_dp0')?.host, '10.0.0.3', 'also within one millisecond');
  replay.pass(1, () => ({ a: record('a', noonMs - 5000, { host: '10.0.0.4' }) }));
  assert.equal(replay.listed.get('a_dp0')?.host, '10.0.0.4', 'also with an older timestamp');
});

test('a change of any field under the same id is a replacement', () => {
  const changes: Partial<Instance>[] = [
    { port: 8001 },
    { kvHost: '10.0.0.2' },
    { kvPort: 20_001 },
    { roles: ['prefill'] },
    { dpRank: 1 },
    { dpSize: 2 },
    { model: 'm' },
  ];
  const replay = new Replay().loaded({ a: record('a', noonMs) });
  for (const [at, change] of changes.entries()) {
    replay.pass(1, () => ({ a: record('a', noonMs, change) }));
    assert.deepEqual(replay.listed.get('a_dp0'), record('a', noonMs, change).instances[0]);
    assert.equal(replay.changes, 2 + at);
  }
});

test('a record whose timestamp stands still expires one TTL after it', () => {
  const replay = new Replay();
  const a = record('a', noonMs - 20_000);
  replay.loaded({ a }).pass(39, () => ({ a }));
  assert.deepEqual(replay.names(), ['a_dp0']);
  replay.pass(1, () => ({ a }));
  assert.deepEqual(replay.names(), []);
  replay.pass(1, () => ({ a: record('a', replay.wallMs) }));
  assert.deepEqual(replay.names(), ['a_dp0'], 'and is back with its next heartbeat');
});

test('an expired record is not listed at first sight, and hides nothing', () => {
  const replay = new Replay().loaded({ a: record('a', noonMs - 61_000), b: record('b', noonMs) });
  assert.deepEqual(replay.names(), ['b_dp0']);
  assert.deepEqual(new Replay().loaded({ a: record('a', noonMs - 61_000) }).names(), [], 'also when it is alone');
});

for (const skewMs of [600_000, -600_000]) {
  const kind = skewMs > 0 ? 'fast' : 'slow';

  test(`a reader whose clock is 10 minutes ${kind} neither empties nor resurrects the fleet`, () => {
    const dead = record('dead', noonMs - 61_000);
    const replay = new Replay({ skewMs }).loaded({ a: record('a', noonMs - 9000), dead });
    assert.deepEqual(replay.names(), ['a_dp0']);
    // A heartbeat every 10 seconds.
    replay.pass(300, (second) => ({ a: record('a', noonMs + Math.floor(second / 10) * 10_000), dead }));
    assert.deepEqual(replay.names(), ['a_dp0']);
    assert.equal(replay.changes, 1);
    const last = record('a', noonMs + 300_000);
    replay.pass(61, () => ({ a: last, dead }));
    assert.deepEqual(replay.names(), []);
  });

  test(`a reader whose clock is 10 minutes ${kind} is not believed because one pod's clock is ${kind} too`, () => {
    const pods = Object.fromEntries(['a', 'b', 'c', 'd'].map((name) => [name, record(name, noonMs - 9000)]));
    const wrong = record('wrong', noonMs + skewMs);
    const dead = record('dead', noonMs - 61_000);
    const replay = new Replay({ skewMs }).loaded({ ...pods, wrong, dead });
    const listed = ['a_dp0', 'b_dp0', 'c_dp0', 'd_dp0'];
    // One that is slow joins with its second heartbeat.
    assert.deepEqual(replay.names(), skewMs > 0 ? [...listed, 'wrong_dp0'] : listed);
  });

  test(`a reader whose clock is 10 minutes ${kind} lists a pod at its second heartbeat, and drops it after a TTL, when the store tells no time`, () => {
    const replay = new Replay({ skewMs, storeClock: false }).loaded({ a: record('a', noonMs) });
    replay.pass(1, () => ({ a: record('a', noonMs + 1000) }));
    assert.deepEqual(replay.names(), ['a_dp0']);
    replay.pass(59, () => ({ a: record('a', noonMs + 1000) }));
    assert.deepEqual(replay.names(), ['a_dp0']);
    replay.pass(1, () => ({ a: record('a', noonMs + 1000) }));
    assert.deepEqual(replay.names(), []);
  });
}

test('a lease vouches for a pod whatever its timestamp says, for one TTL', () => {
  const a = record('a', noonMs - 600_000, { leased: true });
  const replay = new Replay({ storeClock: false }).loaded({ a });
  assert.deepEqual(replay.names(), ['a_dp0']);
  replay.pass(60, () => ({ a }));
  assert.deepEqual(replay.names(), []);
});

test('nothing expires while the store is away, however long, nor when it is back', () => {
  const a = record('a', noonMs);
  const replay = new Replay().loaded({ a }).pass(10, () => ({ a }));
  replay.lost().silence(3600).loaded({ a }, { doubtful: true });
  assert.deepEqual(replay.names(), ['a_dp0']);
  replay.pass(49, () => ({ a }));
  assert.deepEqual(replay.names(), ['a_dp0']);
  replay.pass(1, () => ({ a }));
  assert.deepEqual(replay.names(), [], 'time goes on where it stood still');
});

test('nothing expires because this process did not run for a while', () => {
  const a = record('a', noonMs);
  const replay = new Replay().loaded({ a }).silence(3600).loaded({ a });
  assert.deepEqual(replay.names(), ['a_dp0']);
});

test('a store that is back empty loses nobody for a TTL; who registers again stays', () => {
  const [a, b] = [record('a', noonMs), record('b', noonMs)];
  const replay = new Replay().loaded({ a, b }).pass(10, () => ({ a, b }));
  replay.lost().silence(3600).loaded({}, { doubtful: true });
  assert.deepEqual(replay.names(), ['a_dp0', 'b_dp0']);
  const before = replay.changes;
  replay.pass(59, () => ({ a: record('a', replay.wallMs) }));
  assert.deepEqual(replay.names(), ['a_dp0', 'b_dp0']);
  assert.equal(replay.changes, before);
  replay.pass(1, () => ({ a: record('a', replay.wallMs) }));
  assert.deepEqual(replay.names(), ['a_dp0']);
});

test('a store that comes and goes does not keep the dead for ever', () => {
  const a = record('a', noonMs);
  const b = record('b', noonMs);
  const replay = new Replay().loaded({ a, b });
  for (let flap = 0; flap < 100; flap++) {
    replay
      .lost()
      .silence(5)
      .loaded({ a: record('a', replay.wallMs) }, { doubtful: true });
    replay.silence(1).loaded({ a: record('a', replay.wallMs) });
  }
  assert.deepEqual(replay.names(), ['a_dp0']);
});

test('several pods that vanish all at once are held until one TTL after their last heartbeat', () => {
  const [a, b] = [record('a', noonMs), record('b', noonMs + 5000)];
  const replay = new Replay().loaded({ a, b: record('b', noonMs) }).pass(10, () => ({ a, b }));
  replay.pass(1, () => ({}));
  assert.deepEqual(replay.names(), ['a_dp0', 'b_dp0']);
  replay.pass(49, () => ({}));
  assert.deepEqual(replay.names(), ['b_dp0']);
  replay.pass(1, () => ({}));
  assert.deepEqual(replay.names(), []);
});

test('pods that vanish while as many stay leave at once, also while others are held', () => {
  const [a, b, c, d] = [record('a', noonMs), record('b', noonMs), record('c', noonMs), record('d', noonMs)];
  const replay = new Replay().loaded({ a, b, c, d }).pass(1, () => ({ c, d }));
  assert.deepEqual(replay.names(), ['c_dp0', 'd_dp0']);
  assert.deepEqual(
    new Replay()
      .loaded({ a, b, c })
      .pass(1, () => ({ b, c }))
      .names(),
    ['b_dp0', 'c_dp0'],
  );
  const both = () => ({ c: record('c', noonMs + 1), d: record('d', noonMs + 1) });
  assert.deepEqual(new Replay().loaded({ a, b, c, d }).pass(1, both).names(), ['c_dp0', 'd_dp0']);
  const held = new Replay().loaded({ a, b, c, d }).lost().loaded({ c, d }, { doubtful: true });
  assert.deepEqual(held.pass(1, () => ({ d })).names(), ['a_dp0', 'b_dp0', 'd_dp0']);
});

test('however many vanish, they leave at once when a record is as it was: nobody emptied the store', () => {
  const [a, b, c] = [record('a', noonMs), record('b', noonMs), record('c', noonMs)];
  const stale = record('stale', noonMs - 61_000);
  assert.deepEqual(
    new Replay()
      .loaded({ a, b, c })
      .pass(1, () => ({ c }))
      .names(),
    ['c_dp0'],
  );
  assert.deepEqual(
    new Replay()
      .loaded({ a, b, stale })
      .pass(1, () => ({ stale }))
      .names(),
    [],
  );
});

test('nearly all pods that vanish at once are held, although one wrote again and another has just joined', () => {
  const all = Object.fromEntries(['a', 'b', 'c', 'd', 'e'].map((name) => [name, record(name, noonMs)]));
  const replay = new Replay().loaded(all);
  const again = () => ({ e: record('e', replay.wallMs), new: record('new', replay.wallMs) });
  replay.pass(1, again);
  assert.deepEqual(replay.names(), ['a_dp0', 'b_dp0', 'c_dp0', 'd_dp0', 'e_dp0', 'new_dp0']);
  replay.pass(59, again);
  assert.deepEqual(replay.names(), ['e_dp0', 'new_dp0'], 'until one TTL after their last heartbeat');
});

test('three of four may end in one poll in which the last one writes', () => {
  const all = Object.fromEntries(['a', 'b', 'c', 'd'].map((name) => [name, record(name, noonMs)]));
  const replay = new Replay().loaded(all);
  replay.pass(1, () => ({ d: record('d', replay.wallMs) }));
  assert.deepEqual(replay.names(), ['d_dp0']);
});

test('a put and a delete touch one pod', () => {
  const replay = new Replay().loaded({ a: record('a', noonMs), b: record('b', noonMs) });
  replay.put({ c: record('c', noonMs) }).deleted('a');
  assert.deepEqual(replay.names(), ['b_dp0', 'c_dp0']);
  assert.equal(replay.changes, 4);
  replay.deleted('unknown');
  assert.equal(replay.changes, 4);
});

test('a prefix that is deleted as a whole is held, also when most are put again at once; one after the other leaves', () => {
  const [a, b, c] = [record('a', noonMs), record('b', noonMs), record('c', noonMs)];
  const replay = new Replay().loaded({ a, b, c });
  const again = new Map(['b', 'c'].map((name) => [name, record(name, noonMs + 1)]));
  replay.event({ kind: 'changed', puts: again, deletes: ['a'], deletedTogether: ['a', 'b', 'c'], troubles: [] });
  assert.deepEqual(replay.names(), ['a_dp0', 'b_dp0', 'c_dp0']);
  assert.deepEqual(new Replay().loaded({ a, b }).deleted('a', 'b').names(), ['a_dp0', 'b_dp0']);
  assert.deepEqual(new Replay().loaded({ a, b }).deletedOneByOne('a', 'b').names(), []);
});

test('staleness is judged whenever the store is heard of', () => {
  const replay = new Replay().loaded({ a: record('a', noonMs) });
  for (let second = 0; second < 59; second++) replay.silence(1).deleted();
  assert.deepEqual(replay.names(), ['a_dp0']);
  replay.silence(1).deleted();
  assert.deepEqual(replay.names(), []);
});

test('a rank that leaves a record leaves the list, the others stay as they were', () => {
  const ranks = (...numbers: number[]) => ({
    ...record('a', noonMs + numbers.length),
    instances: numbers.flatMap((rank) => record('a', 0, { id: `a_dp${rank}`, dpRank: rank }).instances),
  });
  const replay = new Replay().loaded({ a: ranks(0, 1, 2, 3) });
  const kept = replay.listed.get('a_dp3');
  replay.put({ a: ranks(0, 1, 3) });
  assert.deepEqual(replay.names(), ['a_dp0', 'a_dp1', 'a_dp3']);
  assert.equal(replay.listed.get('a_dp3'), kept);
  assert.equal(replay.changes, 5);
});

test('the store is up from the first event until it is lost', () => {
  const replay = new Replay();
  assert.equal(replay.state.storeUp, false);
  assert.equal(replay.loaded({}).state.storeUp, true);
  assert.equal(replay.lost().state.storeUp, false);
  assert.equal(replay.deleted().state.storeUp, true);
});

test('whatever happens, the changes add up to the pods that are listed, and nothing stays for ever', () => {
  const names = ['a', 'b', 'c'];
  const events = fc.array(
    fc.record({
      silenceS: fc.nat(90),
      kind: fc.constantFrom('loaded', 'doubtful', 'put', 'deleted', 'lost'),
      names: fc.subarray(names),
      ageMs: fc.integer({ min: -100_000, max: 100_000 }),
      host: fc.constantFrom('h1', 'h2'),
    }),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(events, fc.constantFrom(0, 600_000, -600_000), (all, skewMs) => {
      const replay = new Replay({ skewMs });
      for (const event of all) {
        replay.silence(event.silenceS);
        const { host } = event;
        const records = Object.fromEntries(
          event.names.map((name) => [name, record(name, replay.wallMs - event.ageMs, { host })]),
        );
        if (event.kind === 'lost') replay.lost();
        else if (event.kind === 'put') replay.put(records);
        else if (event.kind === 'deleted') replay.deleted(...event.names);
        else replay.loaded(records, { doubtful: event.kind === 'doubtful' });
        const listed = [...replay.state.pods]
          .filter(([, pod]) => pod.state !== 'expired')
          .map(([name]) => `${name}_dp0`);
        assert.deepEqual(listed.sort(), replay.names());
      }
      // While others advance, it does not matter what became of these three.
      const others = () => fleet(['w', 'x', 'y', 'z'], () => replay.wallMs);
      for (let second = 0; second < 190; second++) replay.silence(1).loaded(others());
      assert.deepEqual(replay.names(), ['w_dp0', 'x_dp0', 'y_dp0', 'z_dp0']);
    }),
  );
});

/** Records of pods by name, each with its own timestamp. */
function fleet(
  names: readonly string[],
  timestampMs: (name: string) => number,
  change = {},
): Record<string, PodRecord> {
  return Object.fromEntries(names.map((name) => [name, record(name, timestampMs(name), change)]));
}

const four = ['a', 'b', 'c', 'd'];
const ids = (names: readonly string[]) => names.map((name) => `${name}_dp0`);

test('pods that stop advancing all together are held as long as it takes, and live with their next heartbeat', () => {
  const replay = new Replay().loaded(fleet(four, (name) => noonMs - 2000 * four.indexOf(name)));
  const still = fleet(four, (name) => noonMs - 2000 * four.indexOf(name));
  replay.pass(59, () => still);
  assert.deepEqual(replay.inState('live'), ['a'], 'the others have their last heartbeat one TTL behind them');
  replay.pass(3600, () => still);
  assert.deepEqual(replay.inState('held'), four);
  assert.deepEqual(replay.names(), ids(four));
  const changes = replay.changes;
  replay.pass(1, () => fleet(four, () => replay.wallMs));
  assert.deepEqual(replay.inState('live'), four);
  assert.equal(replay.changes, changes, 'nobody who follows the list heard of it');
});

test('two pods that stop together are held; one that stops while the other goes on expires, and so does the only one', () => {
  const two = fleet(['a', 'b'], () => noonMs);
  assert.deepEqual(
    new Replay()
      .loaded(two)
      .pass(600, () => two)
      .names(),
    ids(['a', 'b']),
  );
  const one = new Replay().loaded(two);
  one.pass(59, () => ({ ...two, b: record('b', one.wallMs) }));
  assert.deepEqual(one.names(), ids(['a', 'b']));
  one.pass(1, () => ({ ...two, b: record('b', one.wallMs) }));
  assert.deepEqual(one.names(), ids(['b']));
  const last = record('b', one.wallMs);
  one.pass(60, () => ({ ...two, b: last }));
  assert.deepEqual(one.names(), []);
});

test('nearly all is more than three quarters', () => {
  const names = ['a', 'b', 'c', 'd', 'e'];
  for (const [of, kept] of [
    [4, 1],
    [5, 5],
  ] as const) {
    const some = names.slice(0, of);
    const still = fleet(some, () => noonMs);
    const replay = new Replay().loaded(still);
    replay.pass(300, () => ({ ...still, a: record('a', replay.wallMs) }));
    assert.equal(replay.listed.size, kept, `all but one of ${of}`);
  }
});

test('the only pod is held while the store shows that it takes no writes, and for one TTL afterwards', () => {
  const a = record('a', noonMs);
  const replay = new Replay().loaded({ a });
  for (let second = 0; second < 600; second++) replay.silence(1).loaded({ a }, { troubles: ['no_space'] });
  assert.deepEqual(replay.inState('held'), ['a']);
  // What it showed counts for half a TTL.
  replay.pass(88, () => ({ a }));
  assert.deepEqual(replay.names(), ids(['a']));
  replay.pass(1, () => ({ a }));
  assert.deepEqual(replay.names(), []);
});

test('after a silence a pod that does not come back with the others expires within one TTL', () => {
  const still = fleet(four, () => noonMs);
  const replay = new Replay().loaded(still).pass(600, () => still);
  const back = () => ({ ...still, ...fleet(['a', 'b', 'c'], () => replay.wallMs) });
  replay.pass(59, back);
  assert.deepEqual(replay.inState('held'), ['d']);
  replay.pass(1, back);
  assert.deepEqual(replay.names(), ids(['a', 'b', 'c']));
});

test('with heartbeats that come hardly sooner than the TTL a dead pod leaves, too', () => {
  const [a, b] = [record('a', noonMs), record('b', noonMs)];
  const replay = new Replay().loaded({ a, b });
  replay.pass(110, (second) => ({ a: record('a', noonMs + Math.floor(second / 50) * 50_000), b }));
  assert.deepEqual(replay.names(), ids(['a']));
});

test('a record that runs out in a silence is held; one that is deleted sooner leaves at once', () => {
  const still = fleet(four, () => noonMs);
  const replay = new Replay().loaded(still).pass(90, () => still);
  const { d: _deleted, ...rest } = still;
  replay.pass(1, () => rest);
  assert.deepEqual(replay.names(), ids(['a', 'b', 'c']));
  replay.pass(28, () => rest);
  replay.pass(600, () => ({}));
  assert.deepEqual(replay.names(), ids(['a', 'b', 'c']));
  assert.equal(heldPods(replay.state), 3);
  replay.pass(1, () => fleet(['a', 'b', 'c'], () => replay.wallMs));
  assert.deepEqual(replay.inState('live'), ['a', 'b', 'c']);
});

test('leases that run out one after the other, because no registrar can reach etcd, are held', () => {
  const leased = fleet(four, (name) => noonMs - 3000 * four.indexOf(name), { leased: true });
  const replay = new Replay({ pace: etcdPace }).loaded(leased);
  for (let second = 0; second < 57; second++) replay.silence(1).deleted();
  for (const name of four) replay.silence(1).deletedOneByOne(name);
  for (let second = 0; second < 600; second++) replay.silence(1).deleted();
  assert.deepEqual(replay.names(), ids(four));
  replay.put(fleet(four, () => replay.wallMs, { leased: true }));
  assert.deepEqual(replay.inState('live'), four);
  for (let second = 0; second < 62; second++) replay.silence(1).put(fleet(['a', 'b', 'c'], () => replay.wallMs));
  replay.deletedOneByOne('d');
  assert.deepEqual(replay.names(), ids(['a', 'b', 'c']), 'a single lease that runs out is a pod that ended');
});

test('an etcd without space renews leases: who is gone there has ended', () => {
  const leased = fleet(four, () => noonMs, { leased: true });
  const replay = new Replay({ pace: etcdPace }).loaded(leased);
  const event = (deletes: string[]): StoreEvent => ({
    kind: 'changed',
    puts: new Map(),
    deletes,
    deletedTogether: deletes,
    troubles: ['no_space'],
  });
  for (let second = 0; second < 300; second++) replay.silence(1).event(event([]));
  assert.deepEqual(replay.inState('held'), four);
  for (const name of ['b', 'c', 'd']) replay.silence(1).event(event([name]));
  for (let second = 0; second < 300; second++) replay.silence(1).event(event([]));
  assert.deepEqual(replay.names(), ids(['a']));
});

test('records that vanish while the store evicts are held, and one that is deleted on such a store leaves after its TTL', () => {
  const replay = new Replay().loaded(fleet(four, () => noonMs));
  const rest = () => fleet(['a', 'b', 'c'], () => replay.wallMs);
  replay.silence(1).loaded(rest(), { troubles: ['evicts'] });
  assert.deepEqual(replay.inState('held'), ['d']);
  replay.pass(58, rest);
  assert.deepEqual(replay.inState('held'), ['d']);
  replay.pass(1, rest);
  assert.deepEqual(replay.names(), ids(['a', 'b', 'c']));
  replay.pass(1, () => fleet(['a', 'b'], () => replay.wallMs));
  assert.deepEqual(replay.names(), ids(['a', 'b']), 'without evictions it leaves at once');
});

test('while a store evicts records within moments nobody leaves, however seldom one is seen', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), fc.infiniteStream(fc.nat(99)), (size, dice) => {
      const names = Array.from({ length: size }, (_, at) => `p${at}`);
      const replay = new Replay().loaded(fleet(names, () => noonMs));
      for (let second = 0; second < 400; second++) {
        // A heartbeat every ten seconds, of which one in five is seen.
        const there = names.filter((_, at) => (second + at) % 10 === 0 && (dice.next().value ?? 0) < 20);
        replay.silence(1).loaded(
          fleet(there, () => replay.wallMs),
          { troubles: ['evicts'] },
        );
        assert.equal(replay.listed.size, size);
      }
    }),
    { numRuns: 50 },
  );
});

test('whenever a store takes no writes, and whoever dies: the living stay listed, and the dead leave', () => {
  const scenario = fc.record({
    pods: fc.array(
      fc.record({ phaseS: fc.nat(9), diesAtS: fc.option(fc.integer({ min: 0, max: 600 }), { nil: null, freq: 1 }) }),
      { minLength: 2, maxLength: 12 },
    ),
    refusesFromS: fc.integer({ min: 20, max: 200 }),
    refusesForS: fc.nat(400),
  });
  fc.assert(
    fc.property(scenario, ({ pods, refusesFromS, refusesForS }) => {
      const names = pods.map((_, at) => `p${at}`);
      const alive = names.filter((_, at) => pods[at]?.diesAtS === null);
      fc.pre(alive.length >= 2 && alive.length >= names.length / 4);
      const written = new Map(names.map((name) => [name, noonMs]));
      const replay = new Replay().loaded(fleet(names, () => noonMs));
      for (let second = 1; second <= 700; second++) {
        const refuses = second >= refusesFromS && second < refusesFromS + refusesForS;
        for (const [at, { phaseS, diesAtS }] of pods.entries()) {
          const beats = second % 10 === phaseS && (diesAtS === null || second < diesAtS);
          if (beats && !refuses) written.set(`p${at}`, noonMs + second * 1000);
        }
        // Redis keeps a record for two TTLs.
        const there = names.filter((name) => (written.get(name) ?? 0) + 120_000 > noonMs + second * 1000);
        replay.silence(1).loaded(fleet(there, (name) => written.get(name) ?? 0));
        for (const name of alive) assert.ok(replay.listed.has(`${name}_dp0`), `${name} at ${second} s`);
        if (second === refusesFromS + refusesForS + 10) {
          for (const name of alive) assert.equal(replay.state.pods.get(name)?.state, 'live', 'within one heartbeat');
        }
      }
      // The last died at 600 s, or fell silent with all others until then.
      assert.deepEqual(replay.names(), ids(alive).sort());
    }),
  );
});

test('a pod that is back at the address it has just left shares its name with another; one that moves does not', () => {
  const at = (host: string, second: number) => ({ a: record('a', noonMs + second * 1000, { host }) });
  const replay = new Replay().loaded(at('10.0.0.1', 0));
  replay.pass(5, (second) => at('10.0.0.2', second));
  assert.deepEqual(sharedNames(replay.state), []);
  replay.pass(5, (second) => at('10.0.0.1', second));
  assert.deepEqual(sharedNames(replay.state), ['a']);
  replay.pass(70, (second) => at('10.0.0.1', second));
  assert.deepEqual(sharedNames(replay.state), []);
  replay.pass(100, (second) => at('10.0.0.1', second));
  replay.pass(1, (second) => at('10.0.0.2', second));
  assert.deepEqual(sharedNames(replay.state), [], 'long after the last move');
});

test('ranks that come and go do not share a name', () => {
  const ranks = (second: number, ...numbers: number[]) => ({
    a: {
      ...record('a', noonMs + second * 1000),
      instances: numbers.flatMap((rank) => record('a', 0, { id: `a_dp${rank}`, port: 8000 + rank }).instances),
    },
  });
  const replay = new Replay().loaded(ranks(0, 0, 1));
  replay.pass(20, (second) => (second % 2 ? ranks(second, 0) : ranks(second, 0, 1)));
  assert.deepEqual(sharedNames(replay.state), []);
});
