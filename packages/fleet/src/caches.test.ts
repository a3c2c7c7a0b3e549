import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Fingerprints } from '@llm-gateway/protocol';
import { Caches } from './caches.ts';

function prompt(...keys: number[]) {
  const prints = new Fingerprints();
  for (const [at, key] of keys.entries()) prints.add(key, key, (at + 1) * 4096);
  return { bytes: keys.length * 4096, fingerprints: prints.write() };
}

function cachedBy(caches: Caches, numbers: readonly number[], asked: ReturnType<typeof prompt>): number[] {
  caches.match(asked);
  return numbers.map((number) => caches.cached(number));
}

describe('what caches are believed to hold', () => {
  it('is what was placed there, by this router or another', () => {
    const placed: string[] = [];
    const caches = new Caches({ capacityBytes: 1e6, onPlaced: (instance) => placed.push(instance) });
    const numbers = [caches.add('a'), caches.add('b')];
    caches.match(prompt(1, 2));
    caches.place('a', 0);
    caches.placed('b', prompt(1).fingerprints, 0);
    assert.deepEqual(cachedBy(caches, numbers, prompt(1, 2, 3)), [8192, 4096]);
    // Only its own choices are news for others.
    assert.deepEqual(placed, ['a']);
  });

  it('is handed over in pages, whole and in the order of its use', () => {
    const caches = new Caches({ capacityBytes: 1e9 });
    for (const instance of ['a', 'b', 'c']) {
      caches.add(instance);
      for (let at = 1; at <= 9000; at++) caches.placed(instance, prompt(at).fingerprints, 0);
    }
    const small = new Caches({ capacityBytes: 100 * 4096 });
    const numbers = ['a', 'b', 'c'].map((instance) => small.add(instance));
    let pages = 0;
    for (let page = caches.page({}); ; page = caches.page({ after: page.next })) {
      pages++;
      small.take(page.shelves, 0);
      if (page.next === undefined) break;
    }
    assert.equal(pages, 3);
    assert.equal(small.entries, 300);
    assert.deepEqual(cachedBy(small, numbers, prompt(8901)), [4096, 4096, 4096]);
    assert.deepEqual(cachedBy(small, numbers, prompt(8900)), [0, 0, 0]);
  });

  it('is nothing once an instance has missed it four times in a row', () => {
    const lost: string[] = [];
    const caches = new Caches({ capacityBytes: 1e6, onLost: (instance) => lost.push(instance) });
    const numbers = [caches.add('a')];
    caches.placed('a', prompt(1).fingerprints, 0);
    const miss = { expected: 4096, found: 0 };
    for (let at = 0; at < 3; at++) caches.observe('a', miss);
    caches.observe('a', { expected: 4096, found: 4000 });
    for (let at = 0; at < 3; at++) caches.observe('a', miss);
    assert.deepEqual(cachedBy(caches, numbers, prompt(1)), [4096]);
    caches.observe('a', miss);
    assert.deepEqual(cachedBy(caches, numbers, prompt(1)), [0]);
    assert.deepEqual(lost, ['a']);
  });

  it('takes whatever another process sends', () => {
    const caches = new Caches({ capacityBytes: 1e12 });
    caches.add('a');
    caches.placed('a', 'A'.repeat(576), 0);
    caches.placed('nobody', prompt(1).fingerprints, 0);
    caches.take([{ instance: 'a', entries: '_'.repeat(577) }], 0);
    caches.match({ bytes: 1, fingerprints: 'A'.repeat(576) });
    assert.ok(caches.entries > 0);
  });
});
