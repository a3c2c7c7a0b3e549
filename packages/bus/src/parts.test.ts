import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { inParts } from './parts.ts';

test('parts hold all items in order, none is larger than it may be, and no two neighbours would fit into one', () => {
  const items = fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 50 });
  fc.assert(
    fc.property(items, fc.integer({ min: 1, max: 60 }), (sizes, maxBytes) => {
      const parts = inParts(sizes, (size) => size, maxBytes);
      assert.deepEqual(parts.flat(), sizes);
      const bytes = parts.map((part) => part.reduce((sum, size) => sum + size, 0));
      for (const [at, part] of parts.entries()) {
        assert.ok((bytes[at] ?? 0) <= maxBytes || part.length === 1);
        assert.ok(at === 0 || (bytes[at - 1] ?? 0) + (part[0] ?? 0) > maxBytes);
      }
    }),
  );
});

test('no items are one empty part', () => {
  assert.deepEqual(
    inParts([], () => 1, 10),
    [[]],
  );
});
