import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pause, pace, seededRandom } from './pace.ts';

test('tokens come by the timetable: each once, in order, none before its time', async () => {
  const pause = new Pause(new AbortController().signal);
  const startedAt = performance.now();
  const seen: number[] = [];
  await pace({ count: 20, firstMs: () => 30, nextMs: () => 2 }, pause, (from, to) => {
    for (let token = from; token < to; token += 1) {
      seen.push(token);
      assert.ok(performance.now() - startedAt >= 30 + 2 * token - 1);
    }
  });
  assert.deepEqual(
    seen,
    Array.from({ length: 20 }, (_, token) => token),
  );
});

test('without times all tokens are due at once', async () => {
  const calls: number[][] = [];
  const pause = new Pause(new AbortController().signal);
  await pace({ count: 5, firstMs: () => 0, nextMs: () => 0 }, pause, (from, to) => void calls.push([from, to]));
  assert.deepEqual(calls, [[0, 5]]);
});

test('a departure ends every wait at once', async () => {
  const gone = new AbortController();
  const waits = [
    new Pause(gone.signal).for(60_000),
    new Pause(gone.signal).forEver(),
    pace({ count: 1, firstMs: () => 60_000, nextMs: () => 0 }, new Pause(gone.signal), () => {}),
  ];
  gone.abort(new Error('gone'));
  for (const wait of waits) await assert.rejects(wait, /gone/);
});

test('seeded numbers repeat and are spread evenly', () => {
  const numbers = Array.from({ length: 10_000 }, seededRandom(7));
  assert.deepEqual(Array.from({ length: 10_000 }, seededRandom(7)), numbers);
  const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  assert.ok(Math.abs(mean - 0.5) < 0.02);
  assert.ok(numbers.every((number) => number >= 0 && number < 1));
});
