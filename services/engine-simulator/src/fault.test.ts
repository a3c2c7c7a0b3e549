import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { faultHeaders, faultNames, readFaults } from './fault.ts';

const target = { part: 'prefill', engine: 'one', port: 8000 } as const;

test('a fault is for every engine, unless it names others', () => {
  const status = (only?: string) =>
    readFaults({ 'x-sim-status': '500', ...(only !== undefined && { 'x-sim-only': only }) }, target).status;
  assert.equal(status(), 500);
  assert.equal(status('decode, prefill'), 500);
  assert.equal(status('one'), 500);
  assert.equal(status('8000'), 500);
  assert.equal(status('decode'), undefined);
  assert.equal(status('two,8001'), undefined);
});

test('a header or value that means nothing is refused, so that no fault is left out in silence', () => {
  for (const headers of [
    { 'x-sim-staus': '500' },
    { 'x-sim-status': 'high' },
    { 'x-sim-status': '99' },
    { 'x-sim-status': '1000' },
    { 'x-sim-stall': 'everywhere' },
  ]) {
    assert.throws(() => readFaults(headers, target), { name: 'Refusal', status: 400 });
  }
});

test('only headers of faults are handed on', () => {
  assert.deepEqual(faultHeaders({ 'x-sim-status': '500', authorization: 'secret' }), { 'x-sim-status': '500' });
});

test('the README explains every header, and no other', () => {
  const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');
  const explained = new Set(Array.from(readme.matchAll(/`(x-sim-[a-z-]+):/g), ([, name]) => name));
  assert.deepEqual(explained, faultNames);
});
