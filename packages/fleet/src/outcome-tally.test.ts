import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Outcome, OutcomeTally } from './outcome-tally.ts';

/** A tally, and short forms of what it is fed. */
class Probe {
  readonly tally = new OutcomeTally('a');

  record(...outcomes: Outcome[]): void {
    for (const outcome of outcomes) this.tally.record({ instance: 'x', kind: 'chat m' }, outcome, 0);
  }

  accepted(instance: string, times: number): void {
    for (let n = 0; n < times; n++) this.tally.accepted({ instance, kind: 'chat m' }, 0);
  }
}

describe('the outcome tally', () => {
  it('has nothing to report while all goes well', () => {
    const probe = new Probe();
    probe.accepted('x', 1);
    probe.record('succeeded');
    assert.equal(probe.tally.take(), null);
  });

  it('reports failures since the last success and in all, and begins anew after each report', () => {
    const probe = new Probe();
    probe.record('failed', 'succeeded', 'failed', 'failed', 'busy');
    assert.deepEqual(probe.tally.take(), {
      ingress: 'a',
      outcomes: [{ instance: 'x', failures: 2, succeeded: true, busy: 1, failed: 3, served: 1 }],
    });
    assert.equal(probe.tally.take(), null);
    probe.record('failed');
    assert.deepEqual(probe.tally.take()?.outcomes, [
      { instance: 'x', failures: 1, succeeded: false, busy: 0, failed: 1, served: 0 },
    ]);
  });

  it('reports the successes that follow a failure, twenty and no more', () => {
    const probe = new Probe();
    probe.record('failed');
    probe.tally.take();
    for (let n = 0; n < 20; n++) {
      probe.record('succeeded');
      assert.deepEqual(probe.tally.take()?.outcomes, [
        { instance: 'x', failures: 0, succeeded: true, busy: 0, failed: 0, served: 1 },
      ]);
    }
    probe.record('succeeded');
    assert.equal(probe.tally.take(), null);
  });

  it('counts a refusal as a success when all refuse, and as a failure when the others serve such requests', () => {
    const probe = new Probe();
    probe.record('refused', 'refused', 'refused', 'refused');
    assert.equal(probe.tally.take(), null);
    probe.accepted('y', 30);
    for (let n = 0; n < 3; n++) probe.record('refused');
    assert.equal(probe.tally.take()?.outcomes[0]?.failures, 1);
  });
});
