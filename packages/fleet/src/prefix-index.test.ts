import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Fingerprints } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { PrefixIndex } from './prefix-index.ts';

const endless = { maxEntries: 1_000_000, maxAgeMs: 3_600_000 };
const step = 1024;

/** A prompt of so many steps: the blocks say what it begins with. */
function prompt(blocks: readonly number[]): Fingerprints {
  const prints = new Fingerprints();
  let hash = 7;
  for (const [at, block] of blocks.entries()) {
    hash = (Math.imul(hash, 31) + block + 1) & 0x3ffff;
    prints.add(block + 1, hash, (at + 1) * step);
  }
  return prints;
}

const blocks = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 6 });

/**
 * What each instance holds, kept in the plainest way: prompts by their blocks, from the least
 * recently used on.
 */
class Oracle {
  readonly #held: string[][];
  readonly #capacity: number;

  constructor(instances: number, capacity: number) {
    this.#held = Array.from({ length: instances }, () => []);
    this.#capacity = capacity;
  }

  place(instance: number, prompt: readonly number[]): void {
    let held = this.#held[instance] ?? [];
    for (let length = prompt.length; length > 0; length--) {
      const beginning = prompt.slice(0, length).join();
      held = [...held.filter((one) => one !== beginning), beginning];
    }
    this.#held[instance] = held.slice(-this.#capacity);
  }

  empty(instance: number): void {
    this.#held[instance] = [];
  }

  cached(instance: number, prompt: readonly number[]): number {
    for (let length = prompt.length; length > 0; length--) {
      if (this.#held[instance]?.includes(prompt.slice(0, length).join())) return length * step;
    }
    return 0;
  }
}

describe('a prefix index', () => {
  it('agrees with an oracle about every prompt, whatever was placed, fell out or was lost before', () => {
    const event = fc.oneof(
      { weight: 8, arbitrary: fc.record({ do: fc.constant('place' as const), on: fc.nat(3), blocks }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('empty' as const), on: fc.nat(3), blocks }) },
    );
    fc.assert(
      fc.property(
        fc.array(event, { maxLength: 60 }),
        fc.integer({ min: 1, max: 12 }),
        blocks,
        (events, room, asked) => {
          const index = new PrefixIndex(endless);
          const numbers = Array.from({ length: 4 }, () => index.open(room * step));
          const oracle = new Oracle(4, room);
          for (const [at, { do: what, on, blocks: given }] of events.entries()) {
            const number = numbers[on] ?? -1;
            // So far apart that none is as good as used just now.
            if (what === 'place') index.place(number, prompt(given), at * 10_000);
            else index.empty(number);
            if (what === 'place') oracle.place(on, given);
            else oracle.empty(on);
          }
          index.match(prompt(asked));
          for (const [on, number] of numbers.entries()) assert.equal(index.cached(number), oracle.cached(on, asked));
          assert.deepEqual(
            [...index.holders].sort(),
            numbers.filter((_, on) => oracle.cached(on, asked) > 0),
          );
        },
      ),
    );
  });

  it('gives up the ends of prompts before their beginnings, also of those that come close together', () => {
    const event = fc.record({ blocks, ms: fc.constantFrom(0, 1000) });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), fc.integer({ min: 6, max: 12 }), (events, room) => {
        const index = new PrefixIndex(endless);
        const number = index.open(room * step);
        let now = 0;
        for (const { blocks: given, ms } of events) {
          now += ms;
          index.place(number, prompt(given), now);
          index.match(prompt(given));
          if (ms > 0) assert.equal(index.cached(number), given.length * step, 'what was placed last is there');
          const held = index.contents(number, 0, 100).reduce((sum, { bytes }) => sum + bytes, 0);
          assert.ok(held <= room * step);
        }
        const contents = index.contents(number, 0, 100);
        assert.equal(contents.length, index.size);
        const keys = new Set(contents.map(({ key }) => key));
        for (const { blocks: given } of events) {
          const { keys: own } = prompt(given);
          const held = given.map((_, at) => keys.has(own[at] ?? 0));
          assert.ok(held.lastIndexOf(true) < held.indexOf(false) || !held.includes(false), `${given}: ${held}`);
        }
      }),
    );
  });

  it('holds no more entries than it may, and gives up what the fullest instance used the longest ago', () => {
    const index = new PrefixIndex({ ...endless, maxEntries: 100 });
    const number = index.open(Number.MAX_SAFE_INTEGER);
    const other = index.open(Number.MAX_SAFE_INTEGER);
    index.place(other, prompt([9]), 0);
    for (let at = 0; at < 10_000; at++) {
      index.place(number, prompt([at, at]), 0);
      assert.ok(index.size <= 100);
    }
    index.match(prompt([9_999, 9_999]));
    assert.equal(index.cached(number), 2 * step);
    index.match(prompt([9]));
    assert.equal(index.cached(other), step);
    index.match(prompt([1]));
    assert.equal(index.cached(number), 0);
  });

  it('forgets what no request used for long', () => {
    const index = new PrefixIndex({ ...endless, maxAgeMs: 10_000 });
    const number = index.open(100 * step);
    index.place(number, prompt([1]), 0);
    index.place(number, prompt([2]), 9_000);
    index.place(number, prompt([3]), 12_000);
    const cached = [1, 2, 3].map((block) => {
      index.match(prompt([block]));
      return index.cached(number);
    });
    assert.deepEqual(cached, [0, step, step]);
  });

  it('knows nothing of an instance that has gone, nor does the next one of its number', () => {
    const index = new PrefixIndex(endless);
    const number = index.open(100 * step);
    index.place(number, prompt([1, 2]), 0);
    index.close(number);
    assert.equal(index.size, 0);
    assert.equal(index.open(100 * step), number);
    index.match(prompt([1, 2]));
    assert.deepEqual([index.cached(number), index.holders], [0, []]);
  });

  it('looks at a bounded number of holders, so that a prompt that all share costs no more than one that few have', () => {
    const index = new PrefixIndex(endless);
    const numbers = Array.from({ length: 1000 }, () => index.open(100 * step));
    for (const number of numbers) index.place(number, prompt([1, 2, 3]), 0);
    index.match(prompt([1, 2, 3]));
    assert.equal(index.holders.length, 64);
    assert.ok(index.holders.every((number) => index.cached(number) === 3 * step));
  });
});
