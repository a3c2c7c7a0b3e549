import assert from 'node:assert/strict';
import { test } from 'node:test';
import { difference, gather, medianInterval, quartileText, quotient, series } from './series.ts';

test('a series has the middle, or the mean of the two in the middle, and its ends', () => {
  assert.deepEqual(series([3, 1, 2]), { median: 2, low: 1, high: 3, samples: [3, 1, 2] });
  assert.equal(series([4, 1, 2, 10]).median, 3);
  assert.equal(series([7]).median, 7);
  assert.throws(() => series([]), /needs a sample/);
});

test('quartiles are the medians of the halves', () => {
  assert.equal(quartileText([5, 1, 4, 2, 3], 1), '3.0 (1.5 to 4.5)');
  assert.equal(quartileText([4, 3, 2, 1], 0), '3 (2 to 4)');
});

test('the true median is between samples that tables of the sign test name', () => {
  const upTo = (count: number) => Array.from({ length: count }, (_, at) => count - at);
  assert.deepEqual(medianInterval(upTo(6)), [1, 6]);
  assert.deepEqual(medianInterval(upTo(10)), [2, 9]);
  assert.deepEqual(medianInterval(upTo(20)), [6, 15]);
  assert.deepEqual(medianInterval(upTo(40)), [14, 27]);
});

test('series of the same rounds are compared round by round', () => {
  // The second round was slow for both: the quotient does not see it.
  assert.deepEqual(quotient(series([20, 80, 22]), series([10, 40, 11])).samples, [2, 2, 2]);
  assert.deepEqual(difference(series([5, 9]), series([1, 2])).samples, [4, 7]);
  assert.throws(() => quotient(series([1]), series([1, 2])), /same rounds/);
});

test('the values of rounds are gathered by measure, and none may be missing', () => {
  const gathered = gather([
    { cpu: 1, latency: 5 },
    { cpu: 3, latency: 4 },
  ]);
  assert.equal(gathered.cpu?.median, 2);
  assert.deepEqual(gathered.latency?.samples, [5, 4]);
  assert.throws(() => gather([{ cpu: 1 }, {}]), /cpu was not measured/);
});
