import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpuNs, perUnit, rssBytes, schedstatNs, statNs, watchCpu } from './processes.ts';

test('schedstat gives nanoseconds, or nothing when it is not as expected', () => {
  assert.equal(schedstatNs('70279589 333630139 4028\n'), 70_279_589);
  assert.ok(Number.isNaN(schedstatNs('')));
  assert.ok(Number.isNaN(schedstatNs('nonsense')));
});

test('stat gives user and kernel time whatever the name of the process', () => {
  const text = '4242 (a b) (c) S 1 4242 4242 0 -1 4194560 2000 0 5 0 123 45 0 0 20 0 11 0 5000 900000 3000 0';
  assert.equal(statNs(text), (123 + 45) * 10_000_000);
});

test('work of this process is seen, by process and per unit', () => {
  const end = watchCpu({ self: process.pid });
  const until = performance.now() + 100;
  while (performance.now() < until);
  const use = end();
  assert.ok(use.totalMicros > 1000 && use.totalMicros === use.micros.self, `${use.totalMicros} µs`);
  assert.equal(perUnit(use, 10).cpuMicros, use.totalMicros / 10);
  assert.equal('cpuMicros.self' in perUnit(use, 10), false, 'one process is not told apart');
  assert.ok(use.busiest > 0);
});

test('several processes are told apart and summed', () => {
  const use = { micros: { ingress: 300, router: 100 }, totalMicros: 400, seconds: 1, busiest: 0.3 };
  const expected = { cpuMicros: 4, 'cpuMicros.ingress': 3, 'cpuMicros.router': 1, busiest: 0.3 };
  assert.deepEqual(perUnit(use, 100), expected);
});

test('a process that does not exist is an error, not 0', () => {
  const nobody = 2 ** 30;
  assert.throws(() => cpuNs(nobody));
  assert.throws(() => rssBytes(nobody));
});
