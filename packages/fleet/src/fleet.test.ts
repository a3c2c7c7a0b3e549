import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Ask } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { Fleet } from './fleet.ts';
import { instance, Probe, shown, tableOf } from './fleet-scene.ts';

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
