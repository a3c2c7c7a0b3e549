import assert from 'node:assert/strict';
import { test } from 'node:test';
import { atRate } from './at-rate.ts';

test('a rate begins as much as is due and nothing after its end', async () => {
  const perSecond = 500;
  let begun = 0;
  const startedAt = performance.now();
  await atRate(
    perSecond,
    () => begun === 20,
    () => {
      begun++;
      assert.ok(begun <= ((performance.now() - startedAt) / 1000) * perSecond);
    },
  );
  assert.equal(begun, 20);
});
