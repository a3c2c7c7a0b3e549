import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadResult } from './load.ts';

test('the last line of wrk is read, and every kind of error counts', () => {
  const output = `Running 1s test
Requests/sec:   6535.79
{"requests":6609,"durationUs":1011255,"p50Us":3511,"p99Us":125635,"failed":1,"refused":2,"timedOut":3}
`;
  const expected = { requests: 6609, seconds: 1.011255, p50Ms: 3.511, p99Ms: 125.635, errors: 6 };
  assert.deepEqual(loadResult(output), expected);
});

test('output without that line is an error', () => {
  assert.throws(() => loadResult('unable to connect\n'));
});
