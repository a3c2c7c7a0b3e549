import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { OutcomeTally } from './outcome-tally.ts';

describe('the outcome tally', () => {
  it('has nothing to tell while all goes well', () => {
    const tally = new OutcomeTally('a');
    tally.record('x', 'succeeded');
    assert.equal(tally.take(), null);
  });

  it('tells failures since the last success, and begins anew after each report', () => {
    const tally = new OutcomeTally('a');
    for (const outcome of ['failed', 'succeeded', 'failed', 'failed', 'busy'] as const) tally.record('x', outcome);
    assert.deepEqual(tally.take(), {
      ingress: 'a',
      outcomes: [{ instance: 'x', failures: 2, succeeded: true, busy: 1 }],
    });
    assert.equal(tally.take(), null);
    tally.record('x', 'failed');
    assert.deepEqual(tally.take()?.outcomes, [{ instance: 'x', failures: 1, succeeded: false, busy: 0 }]);
  });

  it('tells the first success after failures were told, and no more', () => {
    const tally = new OutcomeTally('a');
    tally.record('x', 'failed');
    tally.take();
    tally.record('x', 'succeeded');
    assert.deepEqual(tally.take()?.outcomes, [{ instance: 'x', failures: 0, succeeded: true, busy: 0 }]);
    tally.record('x', 'succeeded');
    assert.equal(tally.take(), null);
  });
});
