import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Heap, type HeapEntry } from './heap.ts';

type Step =
  | { readonly does: 'add'; readonly rank: number }
  | { readonly does: 'move'; readonly which: number; readonly rank: number }
  | { readonly does: 'remove'; readonly which: number };
const rank = fc.integer({ min: 0, max: 9 });
const which = fc.nat({ max: 1000 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ does: fc.constant('add' as const), rank }),
  fc.record({ does: fc.constant('move' as const), which, rank }),
  fc.record({ does: fc.constant('remove' as const), which }),
);

describe('a heap', () => {
  it('has the lowest rank first, and of equals the oldest, whatever was moved and removed', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
        const heap = new Heap<number>();
        const there: HeapEntry<number>[] = [];
        let count = 0;
        for (const step of steps) {
          if (step.does === 'add') there.push(heap.add(count++, step.rank));
          else if (there.length > 0) {
            const entry = there[step.which % there.length] as HeapEntry<number>;
            if (step.does === 'move') heap.move(entry, step.rank);
            else {
              heap.remove(entry);
              there.splice(there.indexOf(entry), 1);
            }
          }
          const [first] = there.toSorted((a, b) => a.rank - b.rank || a.age - b.age);
          assert.equal(heap.size, there.length);
          assert.equal(heap.first, first?.item);
        }
      }),
    );
  });

  it('looks at no more than a few entries for each level', () => {
    let looks = 0;
    const looked = (rank: number) => ({
      [Symbol.toPrimitive]() {
        looks++;
        return rank;
      },
    });
    const heap = new Heap<number>();
    const size = 100_000;
    const entries = Array.from({ length: size }, (_, at) => heap.add(at, looked((at * 7919) % size) as never));
    for (const entry of entries.slice(0, 1000)) {
      looks = 0;
      heap.move(entry, looked(entry.at) as never);
      heap.remove(entry);
      assert.ok(looks < 40 * Math.log2(size), `${looks} looks`);
    }
  });
});
