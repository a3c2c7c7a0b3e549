import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commit, cpuTicks } from './machine.ts';

test('stolen time is a share of all, in which guest time is not counted twice', () => {
  const stat = 'cpu  100 1 20 300 4 5 6 7 50 0\ncpu0 100 1 20 300 4 5 6 7 50 0\n';
  assert.deepEqual(cpuTicks(stat), { stolen: 7, all: 443 });
});

test('the commit is a hash, with a mark when there is more than it, or unknown', () => {
  assert.match(commit(), /^([0-9a-f]{10}\+?|unknown)$/);
});
