import assert from 'node:assert/strict';
import { test } from 'node:test';
import { find, subjects } from './results.ts';
import { type Case, interleave } from './rounds.ts';

test('cases take turns within a round, and each gets a row with all its rounds', async () => {
  const order: string[] = [];
  const made = ['a', 'b'].map((subject) => ({
    subject,
    variant: 1,
    async measure() {
      order.push(subject);
      return { nth: order.length };
    },
  }));
  const rows = await interleave('unary', made, { rounds: 3, onRound() {}, onFailure: assert.fail });
  assert.equal(order.join(''), 'ababab');
  assert.deepEqual(find(rows, ['unary', 'b', 1, 'nth'])?.samples, [2, 4, 6]);
  assert.equal(find(rows, ['unary', 'b', 2, 'nth']), undefined);
});

test('a case that fails twice in a round is given up and told of, the others go on', async () => {
  const failing = (failures: number): Case => ({
    subject: `fails ${failures} times`,
    variant: 8,
    measure: () => (failures-- > 0 ? Promise.reject(new Error('no')) : Promise.resolve({ value: 1 })),
  });
  const told: string[] = [];
  const options = { rounds: 2, onRound() {}, onFailure: (text: string) => told.push(text) };
  const rows = await interleave('stream', [failing(2), failing(1)], options);
  assert.deepEqual(told, ['stream, fails 2 times, 8, round 1: no']);
  assert.deepEqual(subjects(rows, 'stream'), ['fails 1 times']);
});
