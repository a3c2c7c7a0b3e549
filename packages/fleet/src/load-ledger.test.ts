import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { LoadLedger, leaseMs } from './load-ledger.ts';

const ledgerOf = () => new LoadLedger('router-1', () => {});
const report = (ingress: string, inFlight: Record<string, number>, seen: Record<string, number> = {}) => ({
  ingress,
  inFlight,
  seen,
});

describe('the load ledger', () => {
  it('sums what the ingresses report, and takes each report in place of the one before', () => {
    const ledger = ledgerOf();
    ledger.report(report('a', { x: 3, y: 1 }), 0);
    ledger.report(report('b', { x: 2 }), 0);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y'), ledger.inFlight('z')], [5, 1, 0]);
    ledger.report(report('a', { y: 4 }), 100);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [2, 4]);
  });

  it('holds no more ingresses than there can be, and has room again when they are silent', () => {
    const ledger = ledgerOf();
    ledger.report(report('real', { x: 1 }), 0);
    for (let at = 0; at < 5_000; at++) ledger.report(report(`invented-${at}`, { x: 1 }), 0);
    assert.equal(ledger.inFlight('x'), 2_000);
    ledger.choose('x', { ingress: 'another', sequence: 1 }, { now: 0 });
    assert.equal(ledger.inFlight('x'), 2_000);
    ledger.report(report('real', { x: 3 }), 2_000);
    ledger.expire(4_000);
    assert.equal(ledger.inFlight('x'), 3);
    ledger.report(report('another', { x: 1 }), 4_000);
    assert.equal(ledger.inFlight('x'), 4);
  });

  it('adds up again after numbers that no ingress has', () => {
    const ledger = ledgerOf();
    ledger.report(report('a', { x: 3 }), 0);
    for (const lie of [1e308, Number.MAX_SAFE_INTEGER, 2 ** 60]) {
      for (const liar of ['b', 'c', 'd']) {
        ledger.report({ ...report(liar, { x: lie }), leased: { x: lie }, waiting: { x: lie } }, 10);
      }
      assert.ok(Number.isFinite(ledger.inFlight('x')));
    }
    ledger.report(report('a', { x: 3 }), 2900);
    ledger.expire(3020);
    assert.deepEqual([ledger.inFlight('x'), ledger.waiting('x')], [3, 0]);
  });

  it('keeps a bounded number of invented instances, and none for longer than their ingress reports', () => {
    const named = new Set<string>();
    const ledger = new LoadLedger('me', (instance) => named.add(instance));
    const invented = (from: string) => Object.fromEntries(Array.from({ length: 60_000 }, (_, at) => [from + at, 1]));
    for (let liar = 0; liar < 20; liar++) ledger.report(report(`liar-${liar}`, invented(`i${liar}-`)), 0);
    assert.equal(named.size, 1_000_000);
    ledger.report(report('a', { ['x'.repeat(2000)]: 1, y: 1 }), 0);
    assert.equal(ledger.inFlight('y'), 0);
    ledger.expire(3000);
    ledger.report(report('a', { ['x'.repeat(2000)]: 1, y: 1 }), 3000);
    assert.deepEqual([ledger.inFlight('y'), ledger.inFlight('x'.repeat(2000)), ledger.inFlight('i0-0')], [1, 0, 0]);
  });

  it('counts a choice until its ingress has seen the reply it went out in', () => {
    const ledger = ledgerOf();
    ledger.choose('x', { ingress: 'a', sequence: 7 }, { now: 0 });
    ledger.choose('x', { ingress: 'a', sequence: 7 }, { now: 0 });
    ledger.choose('y', { ingress: 'a', sequence: 8 }, { now: 0 });
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [2, 1]);
    ledger.report(report('a', {}, { 'router-1': 6, 'router-2': 99 }), 10);
    assert.equal(ledger.inFlight('x'), 2);
    ledger.report(report('a', { x: 2 }, { 'router-1': 7 }), 20);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [2, 1]);
    ledger.report(report('a', { x: 1 }, { 'router-1': 8 }), 30);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [1, 0]);
  });

  it('does not take what one ingress has seen for what another has', () => {
    const ledger = ledgerOf();
    ledger.choose('x', { ingress: 'a', sequence: 1 }, { now: 0 });
    ledger.report(report('b', {}, { 'router-1': 5 }), 1);
    assert.equal(ledger.inFlight('x'), 1);
  });

  it('forgets the load of an ingress that was silent for three seconds', () => {
    const ledger = ledgerOf();
    ledger.report(report('a', { x: 3 }), 0);
    ledger.report(report('b', { x: 1 }), 1500);
    ledger.expire(2999);
    assert.equal(ledger.inFlight('x'), 4);
    ledger.expire(3000);
    assert.equal(ledger.inFlight('x'), 1);
    ledger.expire(4500);
    assert.equal(ledger.inFlight('x'), 0);
  });

  it('forgets a choice that nobody acknowledged for five seconds', () => {
    const ledger = ledgerOf();
    ledger.choose('x', { ingress: 'a', sequence: 1 }, { now: 0 });
    ledger.choose('x', { ingress: 'a', sequence: 2 }, { now: 1000 });
    ledger.expire(4999);
    assert.equal(ledger.inFlight('x'), 2);
    ledger.expire(5000);
    assert.equal(ledger.inFlight('x'), 1);
    ledger.expire(6000);
    assert.equal(ledger.inFlight('x'), 0);
  });

  it('is not fooled by names that objects have', () => {
    const ledger = new LoadLedger('constructor', () => {});
    ledger.choose('toString', { ingress: '__proto__', sequence: 1 }, { now: 0 });
    ledger.report(JSON.parse('{"ingress":"__proto__","seen":{},"inFlight":{"__proto__":2}}'), 0);
    assert.deepEqual([ledger.inFlight('toString'), ledger.inFlight('__proto__')], [1, 2]);
  });

  it('balances its books: always the reported loads plus the choices no report counts yet', () => {
    const instances = ['x', 'y'] as const;
    const ingresses = ['a', 'b'] as const;
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('choose' as const),
        ingress: fc.constantFrom(...ingresses),
        instance: fc.constantFrom(...instances),
        waiting: fc.nat(1000),
        sameReply: fc.boolean(),
      }),
      fc.record({
        kind: fc.constant('report' as const),
        ingress: fc.constantFrom(...ingresses),
        x: fc.nat(5),
        y: fc.nat(5),
        waiting: fc.record({ x: fc.nat(1000), y: fc.nat(1000) }),
        behind: fc.nat(4),
      }),
      // What was sent before the last one comes once more, or late.
      fc.record({ kind: fc.constant('again' as const), ingress: fc.constantFrom(...ingresses) }),
      fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 4000 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
        const changed = new Set<string>();
        const ledger = new LoadLedger('me', (id) => changed.add(id));
        // The oracle keeps everything that ever happened and adds it up anew each time.
        const choices: {
          ingress: string;
          instance: string;
          waiting: number;
          sequence: number;
          at: number;
          seen: boolean;
        }[] = [];
        type Gauge = { x: number; y: number };
        const reports = new Map<string, { inFlight: Gauge; waiting: Gauge; seen: number; at: number }>();
        let now = 0;
        let sequence = 1;
        for (const next of steps) {
          if (next.kind === 'wait') {
            now += next.ms;
            ledger.expire(now);
            // A reply leaves at once: nothing joins it later.
            sequence += 1;
          } else if (next.kind === 'choose') {
            if (!next.sameReply) sequence += 1;
            choices.push({ ...next, sequence, at: now, seen: false });
            ledger.choose(next.instance, { ingress: next.ingress, sequence }, { now, waiting: next.waiting });
          } else {
            const before = reports.get(next.ingress);
            if (next.kind === 'again' && before === undefined) continue;
            const told =
              next.kind === 'report'
                ? {
                    inFlight: { x: next.x, y: next.y },
                    waiting: next.waiting,
                    seen: Math.max(sequence - next.behind, 0),
                  }
                : (before ?? { inFlight: { x: 0, y: 0 }, waiting: { x: 0, y: 0 }, seen: 0 });
            const { seen } = told;
            reports.set(next.ingress, { ...told, at: now });
            for (const choice of choices)
              if (choice.ingress === next.ingress && choice.sequence <= seen) choice.seen = true;
            const { inFlight, waiting } = told;
            ledger.report({ ingress: next.ingress, seen: { me: seen }, inFlight, waiting }, now);
            // What comes in a reply that was seen already is a reply of its own.
            sequence += 1;
          }
          for (const instance of instances) {
            const current = [...reports.values()].filter((r) => now - r.at < 3000);
            const pending = choices.filter((c) => c.instance === instance && !c.seen && now - c.at < 5000);
            const inFlight = current.reduce((sum, r) => sum + r.inFlight[instance], pending.length);
            const waiting = pending.reduce((sum, c) => sum + c.waiting, 0);
            assert.equal(ledger.inFlight(instance), inFlight);
            assert.equal(
              ledger.waiting(instance),
              current.reduce((sum, r) => sum + r.waiting[instance], waiting),
            );
          }
        }
      }),
    );
  });

  it('counts a pick until it was used and that use has ended, or until nobody may use it any more', () => {
    const ledger = ledgerOf();
    for (const instance of ['x', 'x', 'y']) ledger.lend(instance, { ingress: 'a', sequence: 1 }, 0);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [2, 1]);
    // One of x is used, the others are held.
    ledger.report({ ...report('a', { x: 1 }, { 'router-1': 1 }), leased: { x: 1, y: 1 } }, 10);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [2, 1]);
    ledger.expire(10 + leaseMs);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [1, 0]);
    ledger.report(report('a', {}, { 'router-1': 1 }), 100);
    assert.equal(ledger.inFlight('x'), 0);
  });

  it('forgets picks whose reply was lost as soon as they are over, whatever else is still awaited', () => {
    const ledger = ledgerOf();
    ledger.choose('x', { ingress: 'a', sequence: 1 }, { now: 0 });
    ledger.lend('y', { ingress: 'a', sequence: 2 }, 0);
    ledger.expire(leaseMs - 1);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [1, 1]);
    ledger.expire(leaseMs);
    assert.deepEqual([ledger.inFlight('x'), ledger.inFlight('y')], [1, 0]);
  });

  it('does not drift when replies and reports of leases are lost, doubled or reordered', () => {
    const step = fc.oneof(
      fc.record({
        do: fc.constant('lend' as const),
        picks: fc.array(fc.constantFrom('x', 'y'), { minLength: 1, maxLength: 8 }),
      }),
      fc.record({ do: fc.constant('reply' as const), which: fc.nat(), again: fc.boolean() }),
      fc.record({ do: fc.constant('lose' as const), which: fc.nat() }),
      fc.record({ do: fc.constant('use' as const) }),
      fc.record({ do: fc.constant('end' as const), which: fc.nat() }),
      fc.record({ do: fc.constant('report' as const) }),
      fc.record({ do: fc.constant('deliver' as const), which: fc.nat(), again: fc.boolean() }),
      fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 40 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        const ledger = new LoadLedger('me', () => {});
        const lent: { sequence: number; at: number; picks: string[] }[] = [];
        const replies: typeof lent = [];
        const reports: { inFlight: Record<string, number>; leased: Record<string, number>; seen: number }[] = [];
        let now = 0;
        // What the ingress holds.
        let stock: { until: number; picks: string[] }[] = [];
        const running: string[] = [];
        let seen = 0;
        // What the router was told.
        let told = { inFlight: {} as Record<string, number>, leased: {} as Record<string, number>, at: 0 };
        let settled = 0;
        const counted = (picks: readonly string[]) => ({
          x: picks.filter((id) => id === 'x').length,
          y: picks.filter((id) => id === 'y').length,
        });
        const unused = () => stock.filter(({ until }) => now < until).flatMap(({ picks }) => picks);
        const snapshot = () => ({ inFlight: counted(running), leased: counted(unused()), seen });
        const deliver = (given: ReturnType<typeof snapshot>) => {
          ledger.report(
            { ingress: 'a', inFlight: given.inFlight, leased: given.leased, seen: { me: given.seen } },
            now,
          );
          told = { ...given, at: now };
          settled = Math.max(settled, given.seen);
        };
        for (const next of steps) {
          switch (next.do) {
            case 'lend': {
              const reply = { sequence: lent.length + 1, at: now, picks: next.picks };
              for (const id of next.picks) ledger.lend(id, { ingress: 'a', sequence: reply.sequence }, now);
              lent.push(reply);
              replies.push(reply);
              break;
            }
            case 'reply': {
              const [reply] = replies.slice(next.which % Math.max(replies.length, 1));
              if (reply === undefined) break;
              if (!next.again) replies.splice(replies.indexOf(reply), 1);
              seen = Math.max(seen, reply.sequence);
              stock.push({ until: reply.at + leaseMs, picks: [...reply.picks] });
              break;
            }
            case 'lose':
              replies.splice(next.which % Math.max(replies.length, 1), 1);
              break;
            case 'use': {
              stock = stock.filter(({ until, picks }) => now < until && picks.length > 0);
              const pick = stock[0]?.picks.shift();
              if (pick !== undefined) running.push(pick);
              break;
            }
            case 'end':
              running.splice(next.which % Math.max(running.length, 1), 1);
              break;
            case 'report':
              reports.push(snapshot());
              break;
            case 'deliver': {
              const [given] = reports.slice(next.which % Math.max(reports.length, 1));
              if (given === undefined) break;
              if (!next.again) reports.splice(reports.indexOf(given), 1);
              deliver({ ...snapshot(), ...given } as ReturnType<typeof snapshot>);
              break;
            }
            case 'wait':
              now += next.ms;
          }
          ledger.expire(now);
          const awaited = lent.filter(({ sequence, at }) => sequence > settled && now - at < leaseMs);
          for (const id of ['x', 'y']) {
            const held = now - told.at < leaseMs ? (told.leased[id] ?? 0) : 0;
            const unseen = awaited.flatMap(({ picks }) => picks).filter((pick) => pick === id).length;
            assert.equal(ledger.inFlight(id), (told.inFlight[id] ?? 0) + held + unseen);
          }
        }
        // One report that comes through, and the time of a lease, and the books are right whatever happened.
        deliver(snapshot());
        now += leaseMs;
        ledger.expire(now);
        assert.deepEqual({ x: ledger.inFlight('x'), y: ledger.inFlight('y') }, counted(running));
      }),
    );
  });
});
