import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reasons } from './reasons.ts';

test('a reason is told at once, then once a minute with its count', () => {
  let now = 1_000;
  const reasons = new Reasons(() => now);
  assert.deepEqual(reasons.take('refused'), { reason: 'refused', count: 1 });
  for (let at = 0; at < 100; at++) assert.equal(reasons.take('refused'), null);
  assert.deepEqual(reasons.take('wrong password'), { reason: 'wrong password', count: 1 });
  now += 59_999;
  assert.equal(reasons.take('refused'), null);
  now += 1;
  assert.deepEqual(reasons.take('refused'), { reason: 'refused', count: 102 });
});

test('reasons without end are told as one, and there is room again after a minute', () => {
  let now = 0;
  const reasons = new Reasons(() => now);
  const told = Array.from({ length: 1_000 }, (_, at) => reasons.take(`reason ${at}`)).filter((one) => one !== null);
  assert.equal(told.length, 21);
  assert.deepEqual(told.at(-1), { reason: 'other reasons', count: 1 });
  now += 60_000;
  assert.deepEqual(reasons.take('new'), { reason: 'new', count: 1 });
  assert.equal(reasons.take('x'.repeat(5_000))?.reason.length, 301);
});
