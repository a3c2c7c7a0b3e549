import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Ask, Role } from '@llm-gateway/protocol';
import { Fleet } from './fleet.ts';
import { instance, off, Probe } from './fleet-scene.ts';
import { type FleetMode, fleetMode, needsKvAddress } from './mode.ts';

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
