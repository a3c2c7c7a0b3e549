import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { fairShare } from './shares.ts';

const demands = fc.array(fc.nat({ max: 50 }), { minLength: 1, maxLength: 8 });
const capacity = fc.nat({ max: 100 });
const turn = fc.nat({ max: 1000 });
const sharesOf = (capacity: number, demands: readonly number[], turn: number) =>
  demands.map((_, own) => fairShare(capacity, demands, { own, turn }));

describe('fair shares', () => {
  it('add up to the capacity', () => {
    fc.assert(
      fc.property(capacity, demands, turn, (capacity, demands, turn) => {
        const sum = sharesOf(capacity, demands, turn).reduce((sum, share) => sum + share, 0);
        assert.equal(sum, capacity);
      }),
    );
  });

  it('give each what it wants up to an equal part, and nobody more than another who wants more', () => {
    fc.assert(
      fc.property(capacity, demands, turn, (capacity, demands, turn) => {
        const shares = sharesOf(capacity, demands, turn);
        const equal = Math.floor(capacity / demands.length);
        for (const [one, share] of shares.entries()) {
          const demand = demands[one] ?? 0;
          assert.ok(share >= Math.min(demand, equal), `${share} of ${demand}`);
          // Who does not get what it wants has no less, but for what cannot be divided, than anybody else.
          if (share < demand) for (const other of shares) assert.ok(other <= share + 1, `${shares}`);
        }
      }),
    );
  });

  it('move what cannot be divided from turn to turn, so that nobody is left out', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 8 }), (capacity, count) => {
        const demands = Array.from({ length: count }, () => 10);
        const got = demands.map(() => 0);
        for (let turn = 0; turn < count; turn++) {
          for (const [at, share] of sharesOf(capacity, demands, turn).entries()) got[at] = (got[at] ?? 0) + share;
        }
        for (const all of got) assert.equal(all, capacity);
      }),
    );
  });
});
