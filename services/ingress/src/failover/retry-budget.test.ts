import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { RetryBudget } from './retry-budget.ts';

function budgetOf(percent: number) {
  const clock = { now: 5000, exhausted: 0 };
  const budget = new RetryBudget({
    percent,
    now: () => clock.now,
    onExhausted: () => {
      clock.exhausted++;
    },
  });
  return { budget, clock };
}

/** Takes all there is, and makes it. */
function takeAll(budget: RetryBudget): number {
  let taken = 0;
  while (budget.take()) {
    budget.made();
    taken++;
  }
  return taken;
}

describe('the retry budget', () => {
  it('allows a small floor without any requests, and tells when it is spent', () => {
    const { budget, clock } = budgetOf(20);
    assert.equal(takeAll(budget), 10);
    assert.equal(clock.exhausted, 1);
  });

  it('allows its share of the requests beyond the floor', () => {
    const { budget } = budgetOf(20);
    for (let n = 0; n < 100; n++) budget.arrived();
    assert.equal(takeAll(budget), 30);
  });

  it('forgets requests and retries after ten seconds', () => {
    const { budget, clock } = budgetOf(50);
    for (let n = 0; n < 100; n++) budget.arrived();
    assert.equal(takeAll(budget), 60);
    clock.now += 9000;
    assert.equal(takeAll(budget), 0);
    clock.now += 1000;
    assert.equal(takeAll(budget), 10);
  });

  it('takes back what came to nothing', () => {
    const { budget, clock } = budgetOf(1);
    assert.ok(budget.take());
    takeAll(budget);
    budget.give();
    assert.equal(takeAll(budget), 1);
    clock.now += 10_000;
    assert.equal(takeAll(budget), 10, 'and no more than that when all is forgotten');
  });

  it('keeps what was taken until it is made, and counts it from then on', () => {
    const { budget, clock } = budgetOf(1);
    for (let n = 0; n < 10; n++) assert.ok(budget.take());
    clock.now += 60_000;
    assert.ok(!budget.take(), 'ten wait');
    for (let n = 0; n < 10; n++) budget.made();
    clock.now += 9000;
    assert.ok(!budget.take(), 'ten were made in the last ten seconds');
    clock.now += 1000;
    assert.equal(takeAll(budget), 10);
  });

  it('never lets more than the floor and its share pass in a window, whatever the order', () => {
    const event = fc.oneof(
      fc.record({ do: fc.constant('arrive' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constantFrom('retry', 'hold', 'make', 'give'), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('pass' as const), times: fc.integer({ min: 1, max: 4000 }) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.array(event, { maxLength: 60 }), (percent, events) => {
        const { budget, clock } = budgetOf(percent);
        const arrivals: number[] = [];
        const made: number[] = [];
        let held = 0;
        // The window of whole seconds that the budget sees.
        const inWindow = (times: readonly number[]) =>
          times.filter((at) => at >= (Math.floor(clock.now / 1000) - 9) * 1000).length;
        for (const event of events) {
          for (let n = 0; n < event.times; n++) {
            if (event.do === 'arrive') {
              budget.arrived();
              arrivals.push(clock.now);
            } else if (event.do === 'retry' || event.do === 'hold') {
              const allowed = held + inWindow(made) + 1 <= 10 + (percent / 100) * inWindow(arrivals);
              assert.equal(budget.take(), allowed);
              if (!allowed) break;
              held++;
            }
            if (held > 0 && (event.do === 'retry' || event.do === 'make')) {
              budget.made();
              made.push(clock.now);
              held--;
            } else if (held > 0 && event.do === 'give') {
              budget.give();
              held--;
            }
          }
          if (event.do === 'pass') clock.now += event.times;
        }
      }),
      { numRuns: 200 },
    );
  });
});
