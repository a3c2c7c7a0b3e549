import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Instance, type InstanceOrder, isTakenOut, type Role } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { Orders } from './orders.ts';

const startMs = 1_700_000_000_000;

function instance(id: string, { model = 'm', roles = ['neutral'] }: { model?: string; roles?: Role[] } = {}): Instance {
  return { id, roles, host: 'h', port: 1, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1, model };
}

function listed(...instances: Instance[]): ReadonlyMap<string, Instance> {
  return new Map(instances.map((one) => [one.id, one]));
}

function order(id: string, change: Partial<InstanceOrder> = {}): InstanceOrder {
  return { instance: id, kind: 'drain', forMs: 60_000, by: 'ada', reason: '', force: false, ...change };
}

describe('the orders of a replica of discovery', () => {
  it('stand with the instance until their time is over', () => {
    const orders = new Orders();
    const all = listed(instance('a'), instance('b'));
    assert.equal(orders.give(order('a'), all, { nowMs: startMs }), 'done');
    const during = orders.applied(instance('a'), { nowMs: startMs + 59_999 });
    assert.deepEqual(during.order, { kind: 'drain', untilMs: startMs + 60_000 });
    assert.equal(orders.applied(instance('b'), { nowMs: startMs }).order, undefined);
    assert.deepEqual(orders.expire({ nowMs: startMs + 59_999 }), []);
    assert.deepEqual(orders.expire({ nowMs: startMs + 60_000 }), ['a']);
    assert.equal(orders.applied(instance('a'), { nowMs: startMs + 60_000 }).order, undefined);
  });

  it('end with undrain, on replicas that hear of it late as well', () => {
    const [here, there] = [new Orders(), new Orders()];
    const all = listed(instance('a'), instance('b'));
    here.give(order('a'), all, { nowMs: startMs });
    there.merge({ replica: 'here', orders: here.all() }, { nowMs: startMs });
    const old = { replica: 'there', orders: there.all() };
    here.give(order('a', { kind: 'undrain' }), all, { nowMs: startMs + 10 });
    // The other one repeats what it had.
    assert.deepEqual(here.merge(old, { nowMs: startMs + 20 }), []);
    assert.equal(here.applied(instance('a'), { nowMs: startMs + 20 }).order, undefined);
    assert.deepEqual(there.merge({ replica: 'here', orders: here.all() }, { nowMs: startMs + 30 }), ['a']);
    assert.equal(there.applied(instance('a'), { nowMs: startMs + 30 }).order, undefined);
  });

  it('are refused for what is not listed, and for the last that serves a model in one of its roles', () => {
    const orders = new Orders();
    const all = listed(instance('a'), instance('b', { model: 'other' }), instance('p', { roles: ['prefill'] }));
    assert.equal(orders.give(order('x'), all, { nowMs: startMs }), 'unknown');
    assert.equal(orders.give(order('a'), all, { nowMs: startMs }), 'last');
    assert.equal(orders.give(order('p', { kind: 'eject' }), all, { nowMs: startMs }), 'last');
    assert.equal(orders.give(order('a', { force: true }), all, { nowMs: startMs }), 'done');
  });

  it('count as taken out what is taken out already', () => {
    const orders = new Orders();
    const all = listed(instance('a'), instance('b'));
    assert.equal(orders.give(order('a'), all, { nowMs: startMs }), 'done');
    assert.equal(orders.give(order('b'), all, { nowMs: startMs + 1 }), 'last');
  });

  it('announce a readmission for some seconds, so that every follower forgets the failures once', () => {
    const orders = new Orders();
    const all = listed(instance('a'), instance('b'));
    orders.give(order('a', { kind: 'eject' }), all, { nowMs: startMs });
    orders.give(order('a', { kind: 'readmit' }), all, { nowMs: startMs + 1 });
    assert.equal(orders.applied(instance('a'), { nowMs: startMs + 2 }).order?.kind, 'readmit');
    assert.deepEqual(orders.expire({ nowMs: startMs + 5_001 }), ['a']);
    assert.deepEqual(orders.expire({ nowMs: startMs + 6_000 }), []);
    assert.equal(orders.applied(instance('a'), { nowMs: startMs + 6_000 }).order, undefined);
  });

  it('are bounded, and take nothing that lasts too long or comes from the future', () => {
    const orders = new Orders();
    const many = Array.from({ length: 300 }, (_, at) => instance(`i${at}`));
    const results = many.map(({ id }) => orders.give(order(id, { force: true }), listed(...many), { nowMs: startMs }));
    assert.equal(results.filter((result) => result === 'done').length, 200);
    assert.equal(results.at(-1), 'full');
    const other = new Orders();
    const hostile = { instance: 'a', kind: 'drain' as const, by: 'x', reason: '' };
    const held = [
      { ...hostile, atMs: startMs, untilMs: startMs + 30 * 24 * 3_600_000 },
      { ...hostile, atMs: startMs + 3_600_000, untilMs: startMs + 7_200_000 },
      { ...hostile, atMs: startMs - 10, untilMs: startMs },
    ];
    for (const one of held) assert.deepEqual(other.merge({ replica: 'x', orders: [one] }, { nowMs: startMs }), []);
  });

  it('are the same on all replicas in the end, whatever order their messages come in', () => {
    const kinds = ['drain', 'undrain', 'eject', 'readmit'] as const;
    const step = fc.record({
      at: fc.nat({ max: 2 }),
      from: fc.nat({ max: 2 }),
      kind: fc.option(fc.constantFrom(...kinds), { nil: null }),
      id: fc.constantFrom('a', 'b'),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const replicas = [new Orders(), new Orders(), new Orders()];
        const all = listed(instance('a'), instance('b'));
        let nowMs = startMs;
        for (const { at, from, kind, id } of steps) {
          nowMs += 7;
          if (kind !== null) replicas[at]?.give(order(id, { kind, force: true }), all, { nowMs });
          else replicas[at]?.merge({ replica: 'r', orders: replicas[from]?.all() ?? [] }, { nowMs });
        }
        for (let round = 0; round < 2; round++) {
          for (const one of replicas) {
            for (const other of replicas) one.merge({ replica: 'r', orders: other.all() }, { nowMs });
          }
        }
        const seen = replicas.map((one) =>
          ['a', 'b'].map((id) => isTakenOut(one.applied(instance(id), { nowMs: nowMs + 1 }))),
        );
        assert.deepEqual(seen[1], seen[0]);
        assert.deepEqual(seen[2], seen[0]);
      }),
    );
  });
});
