import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServedModels } from './served-models.ts';

test('a model was served when an instance declared it, or declared none, or there was no instance yet', () => {
  const served = new ServedModels();
  assert.ok(served.has('a'));
  served.add('a');
  assert.ok(served.has('a'));
  assert.ok(served.has(null));
  assert.ok(!served.has('b'));
  served.add('');
  assert.ok(served.has('b'));
  assert.ok(!served.named('b'));
  assert.ok(served.named('a'));
});

test('no more than ten thousand models are remembered, the newest ones', () => {
  const served = new ServedModels();
  for (let i = 0; i <= 10_000; i++) served.add(`m${i}`);
  assert.ok(!served.has('m0'));
  assert.ok(served.has('m1'));
  assert.ok(served.has('m10000'));
});
