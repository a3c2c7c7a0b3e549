import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { laterPause, type MirrorOrder, type MirrorPause, mirrorOrder, mirrorPaused } from '@llm-gateway/protocol';
import { until } from '@llm-gateway/testing';
import { MirrorOrders } from './mirror-orders.ts';

const log = { info() {} };
const order: MirrorOrder = { kind: 'pause', forMs: 60_000, by: 'ada', reason: 'the target is slow' };

describe('orders for the mirror', () => {
  it('are told each second, outlive the replica that took them, and end with a resume', async () => {
    await using bus = inProcessBus();
    const told: MirrorPause[] = [];
    using _heard = bus.subscribe(mirrorPaused, (pause) => told.push(pause));
    const first = new MirrorOrders(bus, { replica: 'd1', log });
    const { replica } = await bus.request(mirrorOrder, order, { timeoutMs: 1000 });
    assert.equal(replica, 'd1');
    await until(() => told.length === 1, { what: 'it is told at once' });
    using _second = new MirrorOrders(bus, { replica: 'd2', log });
    await until(() => told.length >= 3, { what: 'it is told again, and the second replica has it' });
    first[Symbol.dispose]();
    const before = told.length;
    await until(() => told.length > before, { what: 'the second replica tells it' });
    const last = told.at(-1);
    assert.deepEqual([last?.paused, last?.by, last?.reason], [true, 'ada', 'the target is slow']);
    await bus.request(mirrorOrder, { ...order, kind: 'resume' }, { timeoutMs: 1000 });
    await until(() => told.at(-1)?.paused === false);
    assert.ok((told.at(-1)?.atMs ?? 0) > (last?.atMs ?? 0));
    assert.ok((told.at(-1)?.untilMs ?? 0) >= (last?.untilMs ?? 0));
  });

  it('count by when they were given, and not at all when they are over or from far in the future', () => {
    const pause: MirrorPause = { paused: true, atMs: 1000, untilMs: 9000, by: 'a', reason: '' };
    const later = { ...pause, atMs: 2000 };
    assert.equal(laterPause(null, pause, 5000), pause);
    assert.equal(laterPause(pause, later, 5000), later);
    assert.equal(laterPause(later, pause, 5000), later);
    assert.equal(laterPause(null, pause, 9000), null);
    assert.equal(laterPause(null, { ...pause, atMs: 1e9 }, 5000), null);
    assert.equal(laterPause(null, { ...pause, untilMs: 1e12 }, 5000), null);
  });
});
