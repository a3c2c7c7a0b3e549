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

function takeAll(budget: RetryBudget): number {
  let taken = 0;
  while (budget.take()) taken++;
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
    const { budget } = budgetOf(1);
    takeAll(budget);
    budget.give();
    assert.equal(takeAll(budget), 1);
  });

  it('never lets more than the floor and its share pass in a window, whatever the order', () => {
    const event = fc.oneof(
      fc.record({ do: fc.constant('arrive' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('retry' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('pass' as const), times: fc.integer({ min: 1, max: 4000 }) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.array(event, { maxLength: 60 }), (percent, events) => {
        const { budget, clock } = budgetOf(percent);
        const seen: { at: number; kind: 'arrive' | 'retry' }[] = [];
        for (const event of events) {
          for (let n = 0; n < event.times; n++) {
            if (event.do === 'arrive') {
              budget.arrived();
              seen.push({ at: clock.now, kind: 'arrive' });
            } else if (event.do === 'retry' && budget.take()) {
              seen.push({ at: clock.now, kind: 'retry' });
              // The window of whole seconds that the budget sees.
              const from = (Math.floor(clock.now / 1000) - 9) * 1000;
              const recent = seen.filter(({ at }) => at >= from);
              const retries = recent.filter(({ kind }) => kind === 'retry').length;
              assert.ok(retries <= 10 + ((recent.length - retries) * percent) / 100);
            }
          }
          if (event.do === 'pass') clock.now += event.times;
        }
      }),
      { numRuns: 50 },
    );
  });
});
