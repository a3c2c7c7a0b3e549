import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResponseStore } from './response-store.ts';

test('the last thousand are kept, and no more than fit', () => {
  const store = new ResponseStore();
  const gone = { name: 'Refusal', status: 404 };
  for (let index = 0; index < 1100; index += 1) store.keep(`resp_${index}`, { response: {}, conversation: [] });
  assert.throws(() => store.get('resp_99'), gone);
  assert.deepEqual(store.get('resp_100').response, {});
  const large = { response: {}, conversation: [{ text: 'x'.repeat(30_000_000) }] };
  for (const id of ['a', 'b', 'c']) store.keep(id, large);
  for (const id of ['resp_1099', 'a']) assert.throws(() => store.get(id), gone);
  for (const id of ['b', 'c']) assert.equal(store.get(id).conversation.length, 1);
  const tooLarge = { response: {}, conversation: [{ text: 'x'.repeat(70_000_000) }] };
  store.keep('d', tooLarge);
  for (const id of ['b', 'c', 'd']) assert.throws(() => store.get(id), gone);
  store.keep('e', { response: {}, conversation: [] });
  assert.deepEqual(store.get('e').response, {});
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
