import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Ask, Decision, Instance, Role } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import fc from 'fast-check';
import { Fleet, type FleetMode, type FleetOptions, fleetMode, needsKvAddress } from './fleet.ts';

function instance(id: string, change: Partial<Instance> = {}): Instance {
  const usual = { roles: ['neutral' as Role], host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
  return { id, ...usual, dpRank: 0, dpSize: 1, model: '', ...change };
}

function tableOf(policy: string, entries: readonly object[]) {
  const reading = readRouteTable(policy, entries.length === 0 ? '' : JSON.stringify(entries), () => '');
  assert.ok('table' in reading);
  return reading.table;
}
const off = tableOf('', []);

/**
 * A fleet with a clock of its own that says shortly what it decides: an id, `prefill+decode`, or
 * the route.
 */
class Probe {
  readonly fleet: Fleet;
  now = 0;
  sequence = 0;

  constructor(options: Partial<FleetOptions>, instances: readonly Instance[]) {
    this.fleet = new Fleet({ mode: 'neutral', policy: 'round-robin', self: 'me', ...options });
    this.fleet.reset(instances);
  }

  decide(change: Partial<Ask> = {}, table = off): string {
    const ask: Ask = { model: null, stage: 'route', excluded: [], ...change };
    const reply = { ingress: 'a', sequence: this.sequence };
    return shown(this.fleet.decide(table, ask, { now: this.now, random: () => 0.5, reply }));
  }

  times(count: number, change: Partial<Ask> = {}): string[] {
    return Array.from({ length: count }, () => this.decide(change));
  }

  outcome(id: string, outcome: { failures?: number; succeeded?: boolean; busy?: number }): void {
    const outcomes = [{ instance: id, failures: 0, succeeded: false, busy: 0, ...outcome }];
    this.fleet.outcomes({ ingress: 'a', outcomes }, { now: this.now, random: () => 0.5 });
  }

  report(inFlight: Record<string, number>, seen = this.sequence): void {
    this.fleet.report({ ingress: 'a', inFlight, seen: { me: seen } }, this.now);
  }
}

function shown(decision: Decision): string {
  if (decision.route === 'internal') return decision.instance.id;
  if (decision.route === 'pair') return `${decision.prefill.id}+${decision.decode?.id ?? ''}`;
  return decision.route;
}

describe('instances that report their models', () => {
  const fleet = () =>
    new Probe({}, [
      instance('a', { models: ['A', 'A-lora'] }),
      instance('b', { model: 'B', models: ['B-alias'] }),
      instance('c', { model: 'A' }),
    ]);

  it('serve those, and the one that their record declares', () => {
    const probe = fleet();
    assert.equal(probe.decide({ model: 'A-lora' }), 'a');
    assert.deepEqual(new Set(probe.times(2, { model: 'A' })), new Set(['a', 'c']));
    assert.equal(probe.decide({ model: 'B' }), 'b');
    assert.equal(probe.decide({ model: 'B-alias' }), 'b');
    assert.equal(probe.fleet.hasNamed('A-lora'), true);
    assert.equal(probe.fleet.hasNamed('X'), false);
  });

  it('get what nobody named as well, unless their record declares a model', () => {
    const probe = fleet();
    assert.deepEqual(new Set(probe.times(3, { model: 'X' })), new Set(['a']));
    assert.equal(probe.fleet.names('A-lora', 0), true);
    assert.equal(probe.fleet.names('X', 0), false);
    assert.equal(probe.fleet.hasServed('X'), true, 'it may have been there');
    const declared = new Probe({}, [instance('b', { model: 'B', models: ['B-alias'] })]);
    assert.equal(declared.decide({ model: 'X' }), 'none');
    assert.equal(declared.fleet.hasServed('X'), false);
  });

  it('get what nobody named only where no instance has said nothing', () => {
    const silent = instance('s');
    const probe = new Probe({}, [instance('a', { models: ['A'] }), instance('b', { model: 'B' }), silent]);
    assert.deepEqual(probe.times(3, { model: 'X' }), ['s', 's', 's']);
    probe.fleet.change([{ ...silent, order: { kind: 'drain', untilMs: 1 } }], []);
    assert.deepEqual(probe.times(2, { model: 'X' }), ['a', 'a']);
    probe.fleet.change([silent], []);
    assert.equal(probe.decide({ model: 'X' }), 's');
    probe.fleet.change([], ['s']);
    assert.equal(probe.decide({ model: 'X' }), 'a');
  });

  it('get what they name before those that have said nothing', () => {
    const silent = instance('s');
    const listed = instance('a', { models: ['A'] });
    const probe = new Probe({}, [listed, instance('b', { model: 'B' }), silent]);
    assert.deepEqual(probe.times(4, { model: 'A' }), ['a', 'a', 'a', 'a']);
    assert.deepEqual(probe.times(3, { model: 'B' }), ['b', 'b', 'b'], 'a declared name is one, too');
    probe.fleet.change([{ ...listed, order: { kind: 'drain', untilMs: 1 } }], []);
    assert.deepEqual(probe.times(2, { model: 'A' }), ['s', 's'], 'nobody else is left');
    probe.fleet.change([listed], []);
    assert.equal(probe.decide({ model: 'A' }), 'a');
    const leased = probe.fleet.lease({ role: 'neutral', model: 'A', count: 3 }, { now: 0 });
    assert.deepEqual(new Set(leased.map(({ id }) => id)), new Set(['a']));
  });

  it('do not get what others named that are gone', () => {
    const probe = new Probe({}, [instance('a', { models: ['A'] }), instance('b', { models: ['B'] }), instance('c')]);
    probe.fleet.change([], ['b']);
    assert.deepEqual(probe.times(2, { model: 'B' }), ['c', 'c'], 'but for those that said nothing');
    probe.fleet.change([], ['c']);
    assert.equal(probe.decide({ model: 'B' }), 'none');
    assert.equal(probe.decide({ model: 'X' }), 'a');
    assert.equal(probe.fleet.names('B', 0), false);
    assert.deepEqual(probe.fleet.lease({ role: 'neutral', model: 'B', count: 2 }, { now: 0 }), []);
  });

  it('are as they were when only their models change', () => {
    const probe = fleet();
    probe.outcome('a', { failures: 3 });
    const [before] = probe.fleet.counts(0);
    probe.fleet.change([instance('a', { models: ['A', 'A-lora', 'A-new'] })], []);
    assert.deepEqual(probe.fleet.counts(0)[0], before, 'an ejected one stays ejected');
    assert.equal(probe.decide({ model: 'A-new' }), 'a');
    probe.fleet.change([instance('a', { models: ['A'] })], []);
    assert.equal(probe.decide({ model: 'A-new' }), 'none');
  });

  it('are leased for a model that they report, and no other', () => {
    const probe = fleet();
    const lease = (model: string) => probe.fleet.lease({ role: 'neutral', model, count: 2 }, { now: 0 });
    assert.deepEqual(
      lease('A-lora').map(({ id }) => id),
      ['a', 'a'],
    );
    const address = probe.fleet.address('a');
    assert.ok(address);
    assert.ok(probe.fleet.candidate(address, { role: 'neutral', model: 'A-lora' }));
    assert.equal(probe.fleet.candidate(address, { role: 'neutral', model: 'B' }), undefined);
    assert.ok(probe.fleet.candidate(address, { role: 'neutral', model: '' }), 'of models that nobody named');
    const declared = probe.fleet.address('b');
    assert.ok(declared);
    assert.equal(probe.fleet.candidate(declared, { role: 'neutral', model: '' }), undefined);
  });

  it('are a pair when they share one', () => {
    const prefill = instance('p', { roles: ['prefill'], models: ['A', 'B'] });
    const decodes = [instance('d', { roles: ['decode'], models: ['B'] })];
    const probe = new Probe({ mode: 'batched' }, [prefill, ...decodes]);
    assert.equal(probe.decide({ model: 'B' }), 'p+d');
    assert.equal(probe.decide({ model: 'A' }), 'none');
    assert.equal(probe.fleet.hasCompletePair(), true);
    probe.fleet.change([instance('d', { roles: ['decode'], models: ['C'] })], []);
    assert.equal(probe.fleet.hasCompletePair(), false);
    assert.equal(probe.decide(), 'none');
  });
});

describe('the route of a decision', () => {
  const table = tableOf('prefix', [
    { base_url: 'local', prefix: 'in*' },
    { base_url: 'http://b', prefix: 'out*' },
  ]);
  const fleet = new Fleet({ mode: 'neutral', policy: 'round-robin' });
  fleet.reset([instance('i')]);
  const decide = (model: string | null, stage: Ask['stage'] = 'route') =>
    fleet.decide(table, { model, stage, excluded: [] }, { now: 0, random: () => 0.5 });

  it('is an instance with its addresses when the policy says internal', () => {
    const address = { id: 'i', host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
    assert.deepEqual(decide('inside'), { route: 'internal', instance: address });
  });
  it('is the endpoint when it says external, and unknown when nothing matches', () => {
    assert.deepEqual(decide('outside'), { route: 'external', endpoint: 1 });
    assert.deepEqual(decide('other'), { route: 'unknown' });
  });
  it('is internal without asking the policy again in the later stages', () => {
    assert.equal(shown(decide('outside', 'internal')), 'i');
  });
  it('is none when nothing lives', () => {
    assert.deepEqual(new Probe({}, []).decide(), 'none');
  });
});

describe('who may be chosen', () => {
  it('are the instances of the role that the mode needs', () => {
    const all = [
      instance('d', { roles: ['decode'] }),
      instance('n'),
      instance('p', { roles: ['prefill'] }),
      instance('s', { roles: ['neutral', 'prefill', 'decode'] }),
    ];
    assert.deepEqual(new Probe({}, all).times(4), ['n', 's', 'n', 's']);
    assert.deepEqual(new Probe({ mode: 'batched' }, all.slice(0, 3)).times(2), ['p+d', 'p+d']);
    assert.deepEqual(new Probe({}, [all[0] as Instance]).decide(), 'none');
  });

  it('are those that declare the model, or else those that declare none', () => {
    const probe = new Probe({}, [instance('a', { model: 'A' }), instance('b', { model: 'B' }), instance('c')]);
    assert.deepEqual(probe.times(2, { model: 'A' }), ['a', 'a']);
    assert.deepEqual(probe.times(2, { model: 'B' }), ['b', 'b']);
    assert.deepEqual(probe.times(2, { model: 'another' }), ['c', 'c']);
    assert.deepEqual(probe.times(3, { model: null }), ['a', 'b', 'c']);
  });

  it('are none for a model that nobody declares when all declare one', () => {
    assert.equal(new Probe({}, [instance('a', { model: 'A' })]).decide({ model: 'a' }), 'none');
  });

  it('change with the list, and a changed address is seen by the next decision', () => {
    const probe = new Probe({}, [instance('a'), instance('b'), instance('b')]);
    probe.fleet.change([instance('a', { host: '10.0.0.9' })], ['b']);
    const decision = probe.fleet.decide(
      off,
      { model: null, stage: 'route', excluded: [] },
      { now: 0, random: () => 0 },
    );
    assert.ok(decision.route === 'internal');
    assert.equal(decision.instance.host, '10.0.0.9');
    probe.fleet.reset([]);
    assert.equal(probe.decide(), 'none');
  });
});

describe('round-robin', () => {
  const named = (...ids: string[]) => ids.map((id) => instance(id));

  it('goes through the instances in the order of their ids, whatever order they came in', () => {
    assert.deepEqual(new Probe({}, named('c', 'a', 'b')).times(4), ['a', 'b', 'c', 'a']);
  });

  it('goes on behind the last one chosen when the list changes', () => {
    const probe = new Probe({}, named('b', 'd', 'f'));
    assert.deepEqual(probe.times(2), ['b', 'd']);
    probe.fleet.change(named('a', 'c', 'e'), []);
    assert.equal(probe.decide(), 'e');
    probe.fleet.change([], ['e', 'f']);
    assert.deepEqual(probe.times(2), ['a', 'b']);
    probe.fleet.reset(named('z'));
    probe.fleet.reset(named('a', 'b', 'c'));
    assert.equal(probe.decide(), 'c');
    probe.fleet.change(named('d'), []);
    assert.equal(probe.decide(), 'd');
  });

  it('gives everyone one turn in each round, whoever comes and goes meanwhile', () => {
    const ids = fc.uniqueArray(fc.integer({ min: 0, max: 99 }).map(String), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(ids, fc.nat(30), fc.nat(98), (list, before, joining) => {
        const probe = new Probe({}, named(...list));
        probe.times(before);
        const now = [...new Set([...list, `${joining}x`])];
        probe.fleet.change(named(`${joining}x`), []);
        assert.deepEqual(probe.times(now.length).sort(), now.sort());
      }),
    );
  });

  it('keeps a turn for each model and role', () => {
    const probe = new Probe({}, [
      instance('a', { model: 'A' }),
      instance('b', { model: 'A' }),
      instance('c', { model: 'C' }),
    ]);
    assert.equal(probe.decide({ model: 'A' }), 'a');
    assert.equal(probe.decide({ model: 'C' }), 'c');
    assert.equal(probe.decide({ model: 'A' }), 'b');
  });
});

describe('load-balance', () => {
  const three = [instance('a'), instance('b'), instance('c')];

  it('takes the least loaded, and goes round among equals', () => {
    const probe = new Probe({ policy: 'load-balance' }, three);
    probe.report({ a: 2, b: 1, c: 1 });
    probe.sequence = 1;
    assert.deepEqual(probe.times(5), ['b', 'c', 'a', 'b', 'c']);
  });

  it('counts its own choices until they are in a report', () => {
    const probe = new Probe({ policy: 'load-balance' }, three);
    probe.sequence = 1;
    assert.deepEqual(probe.times(3), ['a', 'b', 'c']);
    probe.report({ a: 1 }, 1);
    assert.equal(probe.decide(), 'b');
    assert.equal(probe.decide(), 'c');
  });

  it('keeps what it knows of the load when the list changes', () => {
    const probe = new Probe({ policy: 'load-balance' }, three);
    probe.report({ a: 1, b: 5, c: 5, d: 3 });
    probe.fleet.change([instance('d')], ['a']);
    assert.equal(probe.decide(), 'd');
  });

  it('keeps equal instances within one of each other when all its choices stay in flight', () => {
    const probe = new Probe({ policy: 'load-balance' }, [...three, instance('d')]);
    const counts = new Map<string, number>();
    for (const id of probe.times(66)) counts.set(id, (counts.get(id) ?? 0) + 1);
    assert.deepEqual([...counts.values()].sort(), [16, 16, 17, 17]);
  });

  it('always takes one with the least load of those that are not excluded', () => {
    const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
    fc.assert(
      fc.property(
        fc.array(fc.nat(4), { minLength: 7, maxLength: 7 }),
        fc.array(fc.subarray(ids, { maxLength: 6 }), { maxLength: 20 }),
        (loads, excludedLists) => {
          const probe = new Probe(
            { policy: 'load-balance' },
            ids.map((id) => instance(id)),
          );
          const known = new Map(ids.map((id, index) => [id, loads[index] ?? 0]));
          probe.report(Object.fromEntries(known));
          probe.sequence = 1;
          for (const excluded of excludedLists) {
            const chosen = probe.decide({ excluded });
            const others = ids.filter((id) => !excluded.includes(id)).map((id) => known.get(id) ?? 0);
            assert.ok(!excluded.includes(chosen));
            assert.equal(known.get(chosen), Math.min(...others));
            known.set(chosen, (known.get(chosen) ?? 0) + 1);
          }
        },
      ),
    );
  });
});

describe('excluded instances', () => {
  it('are avoided while another exists, and taken when none does', () => {
    for (const policy of ['round-robin', 'load-balance'] as const) {
      const probe = new Probe({ policy }, [instance('a'), instance('b')]);
      assert.deepEqual(probe.times(3, { excluded: ['a', 'gone'] }), ['b', 'b', 'b']);
      for (const chosen of probe.times(2, { excluded: ['a', 'b'] })) assert.match(chosen, /^[ab]$/);
      assert.deepEqual(new Set(probe.times(4)), new Set(['a', 'b']));
    }
  });

  it('are avoided even for one that is ejected', () => {
    const probe = new Probe({}, [instance('a'), instance('b')]);
    probe.outcome('a', { failures: 3 });
    assert.equal(probe.decide({ excluded: ['b'] }), 'a');
  });
});

describe('ejection', () => {
  const four = ['a', 'b', 'c', 'd'].map((id) => instance(id));

  it('takes an instance that failed three times in a row out of the turn', () => {
    const ejected: string[] = [];
    const probe = new Probe({ onEject: ({ instance: id, durationMs: ms }) => ejected.push(`${id} ${ms}`) }, four);
    probe.outcome('b', { failures: 2 });
    assert.deepEqual(probe.times(4), ['a', 'b', 'c', 'd']);
    probe.outcome('b', { failures: 1 });
    assert.deepEqual(probe.times(4), ['a', 'c', 'd', 'a']);
    assert.deepEqual(ejected, ['b 1000']);
    assert.deepEqual(probe.fleet.counts(0), [{ role: 'neutral', live: 3, suspect: 0, ejected: 1 }]);
  });

  it('lets one request through when the time is over, and the others when that went well', () => {
    for (const policy of ['round-robin', 'load-balance'] as const) {
      const probe = new Probe({ policy }, [instance('a'), instance('b')]);
      probe.outcome('b', { failures: 3 });
      probe.now = 999;
      assert.deepEqual(probe.times(3), ['a', 'a', 'a']);
      probe.now = 1000;
      assert.deepEqual(probe.times(4).sort(), ['a', 'a', 'a', 'b']);
      probe.now = 1100;
      probe.outcome('b', { succeeded: true });
      assert.ok(probe.times(2).includes('b'));
      assert.deepEqual(probe.fleet.counts(probe.now), [{ role: 'neutral', live: 2, suspect: 0, ejected: 0 }]);
    }
  });

  it('waits twice as long after a failed probe', () => {
    const probe = new Probe({}, [instance('a'), instance('b')]);
    probe.outcome('b', { failures: 3 });
    probe.now = 1000;
    assert.ok(probe.times(2).includes('b'));
    probe.now = 1010;
    probe.outcome('b', { failures: 1 });
    probe.now = 3009;
    assert.ok(!probe.times(3).includes('b'));
    probe.now = 3010;
    assert.ok(probe.times(3).includes('b'));
  });

  it('never takes more than half of a pool, however many fail', () => {
    const probe = new Probe({}, [...four, instance('e')]);
    for (const id of ['a', 'b', 'c', 'd', 'e']) probe.outcome(id, { failures: 5 });
    assert.deepEqual(probe.fleet.counts(0), [{ role: 'neutral', live: 0, suspect: 3, ejected: 2 }]);
    assert.deepEqual(new Set(probe.times(6)), new Set(['c', 'd', 'e']));
    const single = new Probe({}, [instance('a')]);
    single.outcome('a', { failures: 9 });
    assert.equal(single.decide(), 'a');
  });

  it('spares half of the instances of each model, not only of all', () => {
    const probe = new Probe({}, [...four, instance('x', { model: 'X' }), instance('y', { model: 'Y' })]);
    for (const id of ['a', 'b', 'c', 'd']) probe.fleet.change([instance(id, { model: 'A' })], []);
    assert.equal(probe.decide({ model: 'X' }), 'x');
    probe.outcome('x', { failures: 9 });
    assert.deepEqual(probe.fleet.counts(0), [{ role: 'neutral', live: 5, suspect: 1, ejected: 0 }]);
  });

  it('makes ejected instances suspect when the others leave', () => {
    const probe = new Probe({}, four);
    probe.outcome('a', { failures: 3 });
    probe.now = 10;
    probe.outcome('b', { failures: 3 });
    probe.fleet.change([], ['c']);
    assert.deepEqual(probe.fleet.counts(probe.now), [{ role: 'neutral', live: 1, suspect: 1, ejected: 1 }]);
    assert.deepEqual(probe.times(3), ['d', 'd', 'd']);
    probe.fleet.change([], ['d']);
    assert.deepEqual(probe.times(2), ['a', 'a']);
  });

  it('keeps to half of every pool through any history', () => {
    const ids = ['a', 'b', 'c', 'd', 'e', 'f'];
    const models = ['', '', 'A', 'A', 'B', 'B'];
    const event = fc.oneof(
      fc.record({
        kind: fc.constant('fail' as const),
        id: fc.constantFrom(...ids),
        failures: fc.integer({ min: 1, max: 4 }),
      }),
      fc.record({ kind: fc.constant('heal' as const), id: fc.constantFrom(...ids) }),
      fc.record({ kind: fc.constant('leave' as const), id: fc.constantFrom(...ids) }),
      fc.record({ kind: fc.constant('join' as const), id: fc.constantFrom(...ids) }),
      fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 3000 }) }),
    );
    const make = (id: string) => instance(id, { model: models[ids.indexOf(id)] ?? '' });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40, size: 'max' }), (events) => {
        const probe = new Probe({}, ids.map(make));
        const alive = new Set(ids);
        for (const next of events) {
          if (next.kind === 'fail') probe.outcome(next.id, { failures: next.failures });
          else if (next.kind === 'heal') probe.outcome(next.id, { succeeded: true });
          else if (next.kind === 'leave') {
            probe.fleet.change([], [next.id]);
            alive.delete(next.id);
          } else if (next.kind === 'join') {
            probe.fleet.change([make(next.id)], []);
            alive.add(next.id);
          } else probe.now += next.ms;
          const [counts] = probe.fleet.counts(probe.now);
          assert.ok(counts !== undefined && counts.live + counts.suspect + counts.ejected === alive.size);
          assert.ok(counts.ejected <= alive.size / 2);
          // Where all of a pool keep failing, at least half of it takes its requests.
          const inTurn = new Set(probe.times(2 * alive.size));
          if (counts.live === 0) assert.ok(inTurn.size >= alive.size / 2, `${[...inTurn]} of ${[...alive]}`);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('forgets the failures of an instance that comes back under another address', () => {
    const probe = new Probe({}, [instance('a'), instance('b')]);
    probe.outcome('a', { failures: 3 });
    probe.fleet.change([instance('a', { model: 'M' })], []);
    assert.deepEqual(probe.times(2), ['b', 'b']);
    probe.fleet.change([instance('a', { port: 9 })], []);
    assert.deepEqual(probe.times(2), ['a', 'b']);
  });

  it('ignores what is said of instances it does not know', () => {
    const probe = new Probe({}, four);
    probe.outcome('nobody', { failures: 9 });
    assert.equal(probe.decide(), 'a');
  });
});

describe('an instance that its pool cannot spare', () => {
  const three = ['a', 'b', 'c'].map((id) => instance(id));

  it('is suspect: chosen last, with a probe now and then, until one is served', () => {
    for (const policy of ['round-robin', 'load-balance'] as const) {
      const probe = new Probe({ policy }, three);
      probe.outcome('a', { failures: 3 });
      probe.outcome('b', { failures: 3 });
      assert.deepEqual(probe.fleet.counts(0), [{ role: 'neutral', live: 1, suspect: 1, ejected: 1 }]);
      assert.deepEqual(new Set(probe.times(9)), new Set(['c']));
      assert.equal(probe.decide({ excluded: ['c'] }), 'b');
      probe.now = 1000;
      const chosen = probe.times(50);
      assert.deepEqual(chosen.filter((id) => id !== 'c').sort(), ['a', 'b']);
      probe.outcome('b', { succeeded: true });
      assert.deepEqual(probe.fleet.counts(1000), [{ role: 'neutral', live: 2, suspect: 0, ejected: 1 }]);
      assert.ok(probe.times(2).includes('b'));
    }
  });

  it('is live at once when a request that it had is served', () => {
    const probe = new Probe({}, [instance('a')]);
    probe.outcome('a', { failures: 9 });
    probe.outcome('a', { failures: 0, succeeded: true });
    assert.deepEqual(probe.fleet.counts(0), [{ role: 'neutral', live: 1, suspect: 0, ejected: 0 }]);
  });

  it('is preferred to what is ejected and comes after what is avoided', () => {
    const probe = new Probe({}, three);
    probe.outcome('a', { failures: 3 });
    probe.outcome('b', { failures: 3 });
    assert.equal(probe.decide({ avoided: ['c'] }), 'c');
    assert.equal(probe.decide({ excluded: ['c'] }), 'b');
  });
});

describe('probes', () => {
  it('are at most four at once, and then one for each sixteen other requests', () => {
    const ids = Array.from({ length: 100 }, (_, index) => `i${index}`);
    for (const policy of ['round-robin', 'load-balance'] as const) {
      const probe = new Probe(
        { policy },
        ids.map((id) => instance(id)),
      );
      for (const id of ids.slice(2)) probe.outcome(id, { failures: 3 });
      probe.now = 2000;
      const chosen = probe.times(4 + 170);
      const probes = chosen.filter((id) => !['i0', 'i1'].includes(id));
      assert.equal(probes.length, 4 + 10);
      assert.equal(new Set(probes).size, probes.length);
    }
  });

  it('are no requests that have failed before', () => {
    const probe = new Probe(
      {},
      ['a', 'b', 'c'].map((id) => instance(id)),
    );
    probe.outcome('a', { failures: 3 });
    probe.now = 2000;
    assert.equal(probe.decide({ excluded: ['b'] }), 'c');
    assert.equal(probe.decide(), 'a');
  });
});

describe('an instance of which some calls fail', () => {
  it('has less load under load-balance than the others, though it never fails three times in a row', () => {
    const probe = new Probe({ policy: 'load-balance' }, [instance('a'), instance('b')]);
    probe.fleet.outcomes(
      { ingress: 'x', outcomes: [{ instance: 'a', failures: 1, succeeded: true, busy: 0, failed: 2, served: 5 }] },
      { now: 0, random: () => 0.5 },
    );
    probe.report({ a: 10, b: 20 });
    assert.equal(probe.decide(), 'b');
    probe.now = 30_000;
    probe.report({ a: 10, b: 20 });
    assert.equal(probe.decide(), 'a');
  });

  it('is not ejected for failures that end before the requests in flight there can succeed', () => {
    const probe = new Probe({ policy: 'load-balance' }, [instance('a'), instance('b')]);
    probe.report({ a: 20, b: 20 });
    probe.outcome('a', { failures: 9 });
    assert.equal(probe.fleet.counts(0)[0]?.live, 2);
    probe.outcome('a', { failures: 1 });
    assert.equal(probe.fleet.counts(0)[0]?.live, 1);
  });
});

describe('slow start', () => {
  /** The load of `c` after so many choices, when those of the others have 50 each. */
  function loadOf(probe: Probe, choices: number): number {
    probe.report({ a: 50, b: 50 });
    probe.sequence++;
    return probe.times(choices).filter((id) => id === 'c').length;
  }

  it('raises a new instance to its share over its time, from a tenth', () => {
    const probe = new Probe({ policy: 'load-balance', slowStartMs: 30_000 }, [instance('a'), instance('b')]);
    probe.fleet.change([instance('c')], []);
    assert.equal(loadOf(probe, 30), 7);
    probe.now = 15_000;
    assert.equal(loadOf(probe, 40), 28);
    probe.now = 30_000;
    assert.equal(loadOf(probe, 50), 50);
  });

  it('leaves an idle new instance its turn', () => {
    const probe = new Probe({ policy: 'load-balance', slowStartMs: 30_000 }, [instance('a'), instance('b')]);
    probe.fleet.change([instance('c')], []);
    assert.deepEqual(probe.times(3).sort(), ['a', 'b', 'c']);
  });

  it('applies to an instance that is readmitted and to one with a new address, not to those of the first list', () => {
    const all = ['a', 'b', 'c'].map((id) => instance(id));
    const first = new Probe({ policy: 'load-balance', slowStartMs: 30_000 }, all);
    assert.equal(loadOf(first, 50), 50);
    first.fleet.change([instance('c', { port: 9 })], []);
    assert.equal(loadOf(first, 30), 7);
    const back = new Probe({ policy: 'load-balance', slowStartMs: 30_000 }, all);
    back.outcome('c', { failures: 3 });
    back.now = 1000;
    assert.ok(back.times(1).includes('c'));
    back.outcome('c', { succeeded: true });
    assert.equal(loadOf(back, 30), 7);
  });

  it('is off with 0, and unknown to round-robin', () => {
    const probe = new Probe({ policy: 'load-balance', slowStartMs: 0 }, [instance('a'), instance('b')]);
    probe.fleet.change([instance('c')], []);
    assert.equal(loadOf(probe, 50), 50);
    const turns = new Probe({ slowStartMs: 30_000 }, [instance('a'), instance('b')]);
    turns.fleet.change([instance('c')], []);
    assert.equal(loadOf(turns, 30), 10);
  });
});

describe('a busy instance', () => {
  it('is chosen after all others for a second, and counts as live', () => {
    for (const policy of ['round-robin', 'load-balance'] as const) {
      const probe = new Probe({ policy }, [instance('a'), instance('b')]);
      probe.outcome('a', { busy: 1 });
      assert.deepEqual(probe.times(3), ['b', 'b', 'b']);
      assert.equal(probe.decide({ excluded: ['b'] }), 'a');
      assert.deepEqual(probe.fleet.counts(0), [{ role: 'neutral', live: 2, suspect: 0, ejected: 0 }]);
      probe.now = 1000;
      assert.ok(probe.times(2).includes('a'));
    }
  });
});

describe('prefill and decode', () => {
  const role = (id: string, ...roles: Role[]) => instance(id, { roles });
  const pool = [role('p1', 'prefill'), role('p2', 'prefill'), role('d1', 'decode'), role('d2', 'decode')];

  it('are chosen together when batched', () => {
    assert.deepEqual(new Probe({ mode: 'batched' }, pool).times(3), ['p1+d1', 'p2+d2', 'p1+d1']);
  });

  it('are chosen one after the other when staged, the decode by the load at that time', () => {
    const probe = new Probe({ mode: 'staged', policy: 'load-balance' }, pool);
    probe.report({ d1: 0, d2: 5 });
    assert.deepEqual(probe.times(2), ['p1+', 'p2+']);
    probe.report({ d1: 5, d2: 0 });
    assert.equal(probe.decide({ stage: 'decode' }), 'd2');
  });

  it('skip both what a request failed on', () => {
    const probe = new Probe({ mode: 'batched' }, pool);
    assert.deepEqual(probe.times(2, { stage: 'internal', excluded: ['p1', 'd2'] }), ['p2+d1', 'p2+d1']);
  });

  it('are different instances when there is a choice of instances that are both', () => {
    const three = ['x', 'y', 'z'].map((id) => role(id, 'neutral', 'prefill', 'decode'));
    const probe = new Probe({ mode: 'batched' }, three);
    for (const pair of probe.times(12)) {
      const [prefill, decode] = pair.split('+');
      assert.notEqual(prefill, decode);
    }
    assert.equal(new Probe({ mode: 'batched' }, three.slice(0, 1)).decide(), 'x+x');
  });

  const both = ['a', 'b'].map((id) => role(id, 'neutral', 'prefill', 'decode'));
  const modes = ['batched', 'staged'] as const;
  const policies = ['round-robin', 'load-balance'] as const;

  it('leave out what a request failed on, if need be for both halves at one instance', () => {
    for (const policy of policies) {
      const batched = new Probe({ mode: 'batched', policy }, both);
      assert.deepEqual(batched.times(3, { stage: 'internal', excluded: ['b'] }), ['a+a', 'a+a', 'a+a']);
      const staged = new Probe({ mode: 'staged', policy }, both);
      assert.deepEqual(staged.times(3, { stage: 'internal', excluded: ['b'] }), ['a+', 'a+', 'a+']);
      const decode: Partial<Ask> = { stage: 'decode', excluded: ['b'], avoided: ['a'] };
      assert.deepEqual(staged.times(3, decode), ['a', 'a', 'a']);
    }
  });

  it('leave out what is avoided, before one that is busy and after one that is ejected', () => {
    for (const policy of policies) {
      const probe = new Probe({ mode: 'batched', policy }, pool);
      assert.deepEqual(probe.times(2, { avoided: ['p1', 'p1'] }), ['p2+d1', 'p2+d2']);
      probe.outcome('p2', { busy: 1 });
      assert.match(probe.decide({ avoided: ['p1', 'gone'] }), /^p2/);
      probe.outcome('p2', { failures: 3 });
      assert.match(probe.decide({ avoided: ['p1', 'p1', 'p1'] }), /^p1/);
      assert.match(probe.decide({ avoided: ['p1'], excluded: ['p2'] }), /^p1/);
      assert.match(probe.decide({ avoided: ['p2'], excluded: ['p1'] }), /^p2/);
    }
  });

  it('are one instance when the other one that does both is ejected', () => {
    const probe = new Probe({ mode: 'batched' }, both);
    probe.outcome('b', { failures: 3 });
    assert.deepEqual(probe.times(2), ['a+a', 'a+a']);
  });

  it('are none, and nothing is booked, when one of the two is missing', () => {
    for (const mode of ['batched', 'staged'] as const) {
      const probe = new Probe({ mode, policy: 'load-balance' }, pool.slice(0, 2));
      assert.equal(probe.decide(), 'none');
      assert.equal(probe.decide({ stage: 'decode' }), 'none');
      assert.equal(probe.fleet.hasCompletePair(), false);
      probe.fleet.change(pool.slice(2), []);
      assert.ok(probe.decide().startsWith('p1+'));
      assert.equal(probe.fleet.hasCompletePair(), true);
    }
    assert.equal(new Probe({ mode: 'batched' }, pool.slice(2)).decide(), 'none');
  });

  it('serve the same model', () => {
    const mixed = [
      instance('pA', { roles: ['prefill'], model: 'A' }),
      instance('dB', { roles: ['decode'], model: 'B' }),
    ];
    const probe = new Probe({ mode: 'batched' }, mixed);
    assert.equal(probe.decide({ model: 'A' }), 'none');
    assert.equal(probe.fleet.hasCompletePair(), false);
    probe.fleet.change([instance('d', { roles: ['decode'] })], []);
    assert.equal(probe.decide({ model: 'A' }), 'pA+d');
    assert.equal(probe.fleet.hasCompletePair(), true);
  });

  it('serve the same model for a request that names none', () => {
    const of = (id: string, half: Role, model: string) => instance(id, { roles: [half], model });
    const models = [
      ...[of('pA', 'prefill', 'A'), of('pB', 'prefill', 'B'), of('pC', 'prefill', 'C')],
      ...[of('dA', 'decode', 'A'), of('dB', 'decode', 'B')],
    ];
    for (const policy of policies) {
      for (const model of [null, '']) {
        const batched = new Probe({ mode: 'batched', policy }, models);
        // Never at C, which nobody decodes, whatever else is failing.
        assert.deepEqual(batched.times(4, { model }), ['pA+dA', 'pB+dB', 'pA+dA', 'pB+dB']);
        assert.match(batched.decide({ model, excluded: ['pA', 'pB'] }), /^(?:pA\+dA|pB\+dB)$/);
        // Not by taking turns alike.
        batched.fleet.change([of('dA2', 'decode', 'A')], []);
        for (const pair of batched.times(8, { model })) assert.match(pair, /^(?:pA\+dA2?|pB\+dB)$/);
        batched.fleet.change([], ['dA2']);
        batched.fleet.change([], ['dA', 'dB']);
        assert.equal(batched.decide({ model }), 'none');
        const any = new Probe({ mode: 'batched', policy }, [...models.slice(0, 3), of('d', 'decode', '')]);
        assert.deepEqual(any.times(3, { model }), ['pA+d', 'pB+d', 'pC+d']);
      }
    }
  });

  it('serve the same model for a staged request that names none, by what the first decision says', () => {
    const of = (id: string, half: Role, model: string) => instance(id, { roles: [half], model });
    const fleet = new Fleet({ mode: 'staged', policy: 'round-robin' });
    fleet.reset([of('pA', 'prefill', 'A'), of('pN', 'prefill', ''), of('dA', 'decode', 'A')]);
    const decide = (model: string | null) => {
      const decision = fleet.decide(off, { model, stage: 'route', excluded: [] }, { now: 0, random: () => 0 });
      assert.ok(decision.route === 'pair');
      return [decision.prefill.id, decision.model];
    };
    assert.deepEqual(decide(null), ['pA', 'A']);
    assert.deepEqual(decide(null), ['pN', undefined]);
    assert.deepEqual(decide('A'), ['pA', undefined]);
  });

  it('need the KV address of a prefill where the protocol does', () => {
    for (const mode of modes) {
      const missing: string[] = [];
      const without = { kvHost: '', kvPort: 0 };
      const options = { mode, kvAddressNeeded: true, onKvAddressMissing: (id: string) => missing.push(id) };
      const probe = new Probe(options, [
        instance('p', { roles: ['prefill'], ...without }),
        instance('d', { roles: ['decode'], ...without }),
      ]);
      assert.equal(probe.decide(), 'none');
      assert.equal(probe.fleet.hasCompletePair(), false);
      assert.deepEqual(probe.fleet.counts(0)[0], { role: 'prefill', live: 0, suspect: 0, ejected: 0 });
      probe.fleet.change([instance('p', { roles: ['prefill'], ...without })], []);
      probe.fleet.change([instance('q', { roles: ['prefill', 'decode'], kvPort: 0 })], []);
      assert.deepEqual(missing, ['p', 'q']);
      assert.deepEqual(new Set(probe.times(2, { stage: 'decode' })), new Set(['d', 'q']));
      assert.equal(probe.fleet.hasCompletePair(), false);
      probe.fleet.change([instance('p', { roles: ['prefill'] })], []);
      assert.match(probe.decide(), /^p\+/);
      assert.deepEqual(missing, ['p', 'q']);
    }
    const others = new Probe({ mode: 'batched' }, [
      instance('p', { roles: ['prefill'], kvHost: '', kvPort: 0 }),
      instance('d', { roles: ['decode'] }),
    ]);
    assert.equal(others.decide(), 'p+d');
    assert.deepEqual(
      ['', 'vllm-kvt', 'vllm-mooncake'].map((pdDisaggProtocol) => needsKvAddress({ pdDisaggProtocol })),
      [false, true, false],
    );
  });

  it('are counted by role', () => {
    const probe = new Probe({ mode: 'staged' }, pool);
    probe.outcome('d1', { failures: 3 });
    assert.deepEqual(probe.fleet.counts(0), [
      { role: 'prefill', live: 2, suspect: 0, ejected: 0 },
      { role: 'decode', live: 1, suspect: 0, ejected: 1 },
    ]);
    assert.equal(probe.fleet.instances().length, 4);
  });

  it('need a mode that the flags ask for', () => {
    const asked: FleetMode[] = [
      fleetMode({ pdDisaggProtocol: '', separatePdScheduling: true }),
      fleetMode({ pdDisaggProtocol: 'vllm-kvt', separatePdScheduling: false }),
      fleetMode({ pdDisaggProtocol: 'vllm-mooncake', separatePdScheduling: true }),
    ];
    assert.deepEqual(asked, ['neutral', 'batched', 'staged']);
  });
});

describe('picks in advance', () => {
  const lease = (probe: Probe, count: number, model: string | null = null) =>
    probe.fleet
      .lease({ role: 'neutral', model, count }, { now: probe.now, reply: { ingress: 'a', sequence: probe.sequence } })
      .map(({ id }) => id);

  it('are what as many decisions would have been', () => {
    const instances = ['i', 'j', 'k'].map((id) => instance(id));
    for (const policy of ['round-robin', 'load-balance'] as const) {
      const probes = [1, 2].map(() => new Probe({ policy }, instances));
      for (const probe of probes) probe.report({ i: 2, j: 1 });
      assert.deepEqual(lease(probes[0] as Probe, 9), (probes[1] as Probe).times(9), policy);
    }
  });
  it('are of their pool alone: a declared model, those that declare none, or any', () => {
    const probe = new Probe({}, [instance('i', { model: 'm' }), instance('j')]);
    assert.deepEqual(lease(probe, 2, 'm'), ['i', 'i']);
    assert.deepEqual(lease(probe, 2, ''), ['j', 'j']);
    assert.deepEqual(lease(probe, 4).sort(), ['i', 'i', 'j', 'j']);
  });
  it('are of no more pools than there are models, whatever clients ask for', () => {
    const probe = new Probe({}, [instance('i', { model: 'm' }), instance('j')]);
    const names = Array.from({ length: 1000 }, (_, at) => `invented-${at}`);
    assert.deepEqual(
      [...new Set(['m', null, '', ...names].map((name) => probe.fleet.poolOf(name, 0)))],
      ['m', null, ''],
    );
    assert.equal(new Probe({}, [instance('j')]).fleet.poolOf('invented', 0), null);
  });
  it('are none of an instance that is not live or busy', () => {
    const probe = new Probe({}, [instance('i'), instance('j'), instance('k')]);
    probe.outcome('i', { failures: 3 });
    probe.outcome('j', { busy: 1 });
    assert.deepEqual(lease(probe, 3), ['k', 'k', 'k']);
    probe.outcome('k', { busy: 1 });
    assert.deepEqual(lease(probe, 3), []);
  });
  it('are none while an instance waits for a probe, which a request that is there makes', () => {
    const probe = new Probe({}, [instance('i'), instance('j')]);
    probe.outcome('i', { failures: 3 });
    probe.now = 1300;
    assert.deepEqual(lease(probe, 4), []);
    assert.equal(probe.decide(), 'i');
    assert.deepEqual(lease(probe, 4), ['j', 'j', 'j', 'j']);
  });
  it('are none of pairs', () => {
    const both = instance('i', { roles: ['neutral', 'prefill', 'decode'] });
    assert.deepEqual(lease(new Probe({ mode: 'batched' }, [both]), 4), []);
  });
  it('are taken for the instance as it is known here, and not while it is ejected, suspect, busy or gone', () => {
    const probe = new Probe({}, [instance('i'), instance('j')]);
    const { fleet } = probe;
    const given = { id: 'i', host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
    const pool = { role: 'neutral', model: null } as const;
    assert.equal(fleet.candidate({ ...given, host: '10.0.0.66' }, pool), undefined);
    assert.equal(fleet.candidate({ ...given, id: 'other' }, pool), undefined);
    assert.equal(fleet.candidate(given, { role: 'prefill', model: null }), undefined);
    const candidate = fleet.candidate(given, pool);
    assert.ok(candidate !== undefined && fleet.isUsable(candidate, 0));
    probe.outcome('i', { busy: 1 });
    assert.deepEqual(
      [0, 999, 1000].map((now) => fleet.isUsable(candidate, now)),
      [false, false, true],
    );
    probe.outcome('j', { failures: 3 });
    probe.outcome('i', { failures: 3 });
    // It cannot be spared: suspect.
    assert.deepEqual(
      [0, 1300].map((now) => fleet.isUsable(candidate, now)),
      [false, true],
    );
    fleet.change([instance('i', { port: 8001 })], []);
    assert.equal(fleet.isUsable(candidate, 1300), false);
    fleet.change([], ['i']);
    assert.equal(fleet.isUsable(candidate, 1300), false);
  });
});
