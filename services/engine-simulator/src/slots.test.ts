import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Slots } from './slots.ts';

const { signal: never } = new AbortController();

test('as many run as there are slots, the others wait in order', async () => {
  const slots = new Slots(2, 10);
  const order: number[] = [];
  const held: Disposable[] = [];
  const asked = [0, 1, 2, 3].map(async (index) => {
    held.push(await slots.acquire(never));
    order.push(index);
  });
  await Promise.all(asked.slice(0, 2));
  assert.deepEqual([slots.running, slots.waiting], [2, 2]);
  held[0]?.[Symbol.dispose]();
  await asked[2];
  assert.deepEqual([slots.running, slots.waiting], [2, 1]);
  held[1]?.[Symbol.dispose]();
  await asked[3];
  assert.deepEqual(order, [0, 1, 2, 3]);
  for (const slot of held) slot[Symbol.dispose]();
  assert.deepEqual([slots.running, slots.waiting], [0, 0]);
});

test('a full queue refuses with 503', async () => {
  const slots = new Slots(1, 0);
  using _held = await slots.acquire(never);
  await assert.rejects(slots.acquire(never), { name: 'Refusal', status: 503 });
  assert.throws(() => slots.requireRoom(), { name: 'Refusal', status: 503 });
});

test('one who leaves the queue gives up the place at once', async () => {
  const slots = new Slots(1, 1);
  const leaver = new AbortController();
  const held = await slots.acquire(never);
  const waiting = slots.acquire(leaver.signal);
  leaver.abort(new Error('gone'));
  await assert.rejects(waiting, /gone/);
  assert.equal(slots.waiting, 0);
  const next = slots.acquire(never);
  held[Symbol.dispose]();
  using _next = await next;
  assert.equal(slots.running, 1);
});

test('a slot given back twice is given back once', async () => {
  const slots = new Slots(1, 1);
  const slot = await slots.acquire(never);
  slot[Symbol.dispose]();
  slot[Symbol.dispose]();
  assert.equal(slots.running, 0);
});
