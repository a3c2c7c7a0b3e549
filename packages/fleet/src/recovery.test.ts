import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { instance, Probe } from './fleet-scene.ts';

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
