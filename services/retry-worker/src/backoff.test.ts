import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backoffMs } from './backoff.ts';

const rules = { initDelayMs: 500, maxDelayMs: 5000 };
const middle = () => 0.5;

describe('the wait before a call', () => {
  it('doubles from the initial delay up to the maximum', () => {
    const waits = [0, 1, 2, 3, 4, 5, 2000].map((calls) =>
      backoffMs(calls, rules, { retryAfterMs: null, random: middle }),
    );
    assert.deepEqual(waits, [500, 1000, 2000, 4000, 5000, 5000, 5000]);
  });

  it('is what the endpoint asked for when that is longer, and then may pass the maximum', () => {
    assert.equal(backoffMs(0, rules, { retryAfterMs: 60_000, random: () => 0 }), 60_000);
    assert.equal(backoffMs(3, rules, { retryAfterMs: 1000, random: middle }), 4000);
    assert.equal(backoffMs(3, rules, { retryAfterMs: 0, random: middle }), 4000);
  });

  it('stays within 10 % of the delay, and is never shorter than the endpoint asked for', () => {
    fc.assert(
      fc.property(
        fc.nat(2000),
        fc.record({ initDelayMs: fc.nat(100_000), maxDelayMs: fc.nat(100_000) }),
        fc.option(fc.double({ min: 0, max: 1e6, noNaN: true })),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (calls, given, retryAfterMs, drawn) => {
          const waitMs = backoffMs(calls, given, { retryAfterMs, random: () => drawn });
          const delayMs = Math.min(given.initDelayMs === 0 ? 0 : given.initDelayMs * 2 ** calls, given.maxDelayMs);
          const longest = Math.max(delayMs, retryAfterMs ?? 0);
          assert.ok(waitMs >= (retryAfterMs ?? 0));
          assert.ok(waitMs >= 0.9 * longest - 1e-6 && waitMs <= 1.1 * longest + 1e-6);
        },
      ),
    );
  });
});
