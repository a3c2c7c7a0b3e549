import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from './until.ts';

test('a condition that becomes true is waited for, and what it returned is given back', async () => {
  let asked = 0;
  const value = await until(() => {
    asked += 1;
    return asked > 3 ? { asked } : undefined;
  });
  assert.equal(value.asked, 4);
});

test('assertions may stand inside a condition, and the last one that failed is told', async () => {
  let asked = 0;
  await until(() => {
    asked += 1;
    assert.equal(asked, 3);
    return true;
  });
  const never = until(() => assert.equal(1, 2, 'one is not two'), { timeoutMs: 30, what: 'the impossible' });
  await assert.rejects(never, /not within 30 ms: the impossible: one is not two/);
});
