import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Ask, Fingerprints, type Instance } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import fc from 'fast-check';
import { Caches } from './caches.ts';
import { Fleet, type FleetOptions } from './fleet.ts';

const off = (() => {
  const reading = readRouteTable('', '', () => '');
  if (!('table' in reading)) throw new Error('no table');
  return reading.table;
})();
const step = 1024;
const max = 1000;

function instance(id: string, change: Partial<Instance> = {}): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
  return { id, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '', ...change };
}

function prompt(keys: readonly number[], affinity?: number): NonNullable<Ask['prompt']> {
  const prints = new Fingerprints();
  for (const [at, key] of keys.entries()) prints.add(key + 1, at, (at + 1) * step);
  return { bytes: keys.length * step, fingerprints: prints.write(), ...(affinity !== undefined && { affinity }) };
}

function fleetOf(options: Partial<FleetOptions>, instances: readonly Instance[]): Fleet {
  const caches = new Caches({ capacityBytes: 1e9 });
  const fleet = new Fleet({ mode: 'neutral', policy: 'cache-aware', self: 'me', caches, ...options });
  fleet.reset(instances);
  return fleet;
}

const three = ['a', 'b', 'c'].map((id) => instance(id));

describe('an explanation', () => {
  it('names what is chosen next, and changes nothing of what is chosen afterwards', () => {
    const event = fc.oneof(
      fc.record({ kind: fc.constant('ask' as const), keys: fc.array(fc.nat(2), { minLength: 1, maxLength: 4 }) }),
      fc.record({ kind: fc.constant('session' as const), affinity: fc.nat(5) }),
      fc.record({ kind: fc.constant('fail' as const), id: fc.constantFrom('a', 'b', 'c') }),
      fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 3000 }) }),
      fc.record({ kind: fc.constant('plain' as const), excluded: fc.subarray(['a', 'b', 'c']) }),
    );
    const policy = fc.constantFrom('round-robin' as const, 'load-balance' as const, 'cache-aware' as const);
    fc.assert(
      fc.property(policy, fc.array(event, { maxLength: 40 }), (chosenBy, events) => {
        const told = fleetOf({ policy: chosenBy }, three);
        const silent = fleetOf({ policy: chosenBy }, three);
        let now = 0;
        for (const [sequence, one] of events.entries()) {
          if (one.kind === 'wait') now += one.ms;
          else if (one.kind === 'fail') {
            const outcomes = [{ instance: one.id, failures: 3, succeeded: false, busy: 0 }];
            for (const fleet of [told, silent]) {
              fleet.outcomes({ ingress: 'i', outcomes }, { now, random: () => 0.5 });
            }
          } else {
            const asked =
              one.kind === 'ask' ? prompt(one.keys) : one.kind === 'session' ? prompt([], one.affinity) : null;
            const excluded = one.kind === 'plain' ? one.excluded : [];
            const wish = { model: null, excluded, ...(asked && { prompt: asked }) };
            const [pool] = told.explain(wish, { now, max });
            const context = { now, random: () => 0.5, reply: { ingress: 'i', sequence } };
            const ask: Ask = { stage: 'route', ...wish };
            const decision = told.decide(off, ask, context);
            assert.deepEqual(decision, silent.decide(off, ask, context));
            assert.ok(decision.route === 'internal');
            assert.equal(pool?.chosen, decision.instance.id);
            assert.equal(pool?.candidates[0]?.instance, decision.instance.id);
            if (decision.expected === undefined) continue;
            assert.equal(pool?.candidates[0]?.cost, decision.expected.cost);
            assert.equal(pool?.candidates[0]?.cached, decision.expected.cached);
            if (pool?.why !== 'probe') assert.equal(pool?.why, decision.expected.why);
          }
        }
      }),
    );
  });

  it('compares the candidates by what the choice compares them by, and says why others are out', () => {
    const order = { kind: 'drain' as const, untilMs: 1 };
    const fleet = fleetOf({}, [
      instance('busy', { model: 'm' }),
      instance('drained', { model: 'm', order }),
      instance('idle', { model: 'm' }),
      instance('other', { model: 'n' }),
      instance('prefill', { model: 'm', roles: ['prefill'] }),
    ]);
    fleet.report({ ingress: 'i', seen: {}, inFlight: { busy: 2 }, waiting: { busy: 5000 } }, 0);
    const asked = { bytes: 3000 };
    const [pool] = fleet.explain({ model: 'm', excluded: [], prompt: asked }, { now: 0, max });
    assert.deepEqual(
      pool?.candidates.map(({ instance: id, out, cost }) => [id, out ?? cost]),
      [
        ['idle', 3000],
        ['busy', 3000 + 5000 + 2 * 256],
        ['drained', 'drain'],
        ['other', 'model'],
        ['prefill', 'role'],
      ],
    );
    assert.deepEqual([pool?.chosen, pool?.why, pool?.total, pool?.model], ['idle', 'load', 5, 'm']);
    const [cut] = fleet.explain({ model: 'm', excluded: [] }, { now: 0, max: 2 });
    assert.deepEqual([cut?.candidates.length, cut?.total], [2, 5]);
    const [none] = fleet.explain({ model: 'nobody', excluded: [] }, { now: 0, max });
    assert.deepEqual([none?.chosen, none?.model], [null, '']);
  });

  it('has a pool for each role of a pair, and chooses no prefill that nobody decodes', () => {
    const fleet = fleetOf({ mode: 'batched' }, [
      instance('p', { roles: ['prefill'], model: 'm' }),
      instance('q', { roles: ['prefill'], model: 'n' }),
      instance('d', { roles: ['decode'], model: 'm' }),
    ]);
    const chosen = (model: string | null) =>
      fleet.explain({ model, excluded: [] }, { now: 0, max }).map(({ role, chosen: id }) => [role, id]);
    assert.deepEqual(chosen('m'), [
      ['prefill', 'p'],
      ['decode', 'd'],
    ]);
    assert.deepEqual(chosen('n'), [
      ['prefill', null],
      ['decode', null],
    ]);
    assert.deepEqual(chosen(null), [
      ['prefill', 'p'],
      ['decode', 'd'],
    ]);
    const [prefill] = fleet.explain({ model: null, excluded: [] }, { now: 0, max });
    assert.equal(prefill?.candidates.find(({ instance: id }) => id === 'q')?.out, 'no_decode');
  });
});
