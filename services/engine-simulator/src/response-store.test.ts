import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResponseStore } from './response-store.ts';

test('the last thousand are kept, and no more than fit', () => {
  const store = new ResponseStore();
  for (let index = 0; index < 1100; index += 1) store.keep(`resp_${index}`, { response: {}, conversation: [] });
  assert.equal(store.size, 1000);
  assert.throws(() => store.get('resp_99'), { name: 'Refusal', status: 404 });
  assert.deepEqual(store.get('resp_100').response, {});
  const large = { response: {}, conversation: [{ text: 'x'.repeat(30_000_000) }] };
  for (const id of ['a', 'b', 'c']) store.keep(id, large);
  assert.equal(store.size, 2);
  assert.throws(() => store.get('a'), { status: 404 });
  const tooLarge = { response: {}, conversation: [{ text: 'x'.repeat(70_000_000) }] };
  store.keep('d', tooLarge);
  assert.equal(store.size, 0);
  store.keep('e', { response: {}, conversation: [] });
  assert.equal(store.size, 1);
});

test('one that runs without its client can be cancelled once, one that has ended cannot', () => {
  const store = new ResponseStore();
  store.keep('a', { response: { status: 'queued' }, conversation: [] });
  const signal = store.begin('a');
  assert.equal(store.cancel('a').status, 'cancelled');
  assert.ok(signal.aborted);
  assert.ok(store.end('a'));
  assert.equal(store.cancel('a').status, 'cancelled');
  store.keep('b', { response: { status: 'completed' }, conversation: [] });
  assert.throws(() => store.cancel('b'), { status: 400 });
  store.keep('c', { response: { status: 'queued' }, conversation: [] });
  const deleted = store.begin('c');
  store.delete('c');
  assert.ok(deleted.aborted);
  assert.throws(() => store.cancel('c'), { status: 404 });
});
