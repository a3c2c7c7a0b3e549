import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readRedisInfo, redisTroubles } from './redis-info.ts';

function info(lines: readonly string[]): ReturnType<typeof readRedisInfo> {
  return readRedisInfo(`# Server\r\n${lines.join('\r\n')}\r\n`);
}

test('what Redis refused since the last look is a trouble, and what it refused before is none', () => {
  const before = info(['role:master', 'evicted_keys:5', 'errorstat_OOM:count=3', 'errorstat_ERR:count=1']);
  const now = info([
    'role:master',
    'evicted_keys:5',
    'errorstat_OOM:count=3',
    'errorstat_ERR:count=9',
    'errorstat_NOPERM:count=1',
  ]);
  assert.deepEqual(redisTroubles(before, now), ['not_allowed']);
  assert.deepEqual(redisTroubles(null, now), [], 'at the first look nothing is known of before');
  assert.deepEqual(redisTroubles(now, before), [], 'it was started again');
});

test('each refusal and evictions have their name', () => {
  const codes = ['OOM', 'READONLY', 'NOREPLICAS', 'MISCONF', 'NOPERM', 'NOAUTH'];
  const now = info(['evicted_keys:1', ...codes.map((code) => `errorstat_${code}:count=1`)]);
  assert.deepEqual(redisTroubles(info([]), now), [
    'no_space',
    'read_only',
    'no_replicas',
    'not_saved',
    'not_allowed',
    'login',
    'evicts',
  ]);
});

test('a replica takes no writes, whether or not somebody tried', () => {
  assert.deepEqual(redisTroubles(null, info(['role:slave'])), ['read_only']);
});

test('a text that is no INFO shows nothing', () => {
  assert.deepEqual(
    redisTroubles(readRedisInfo(''), readRedisInfo('errorstat_constructor:count=1 \n evicted_keys:x')),
    [],
  );
});
