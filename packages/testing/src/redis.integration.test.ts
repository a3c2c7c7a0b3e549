import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startRedis } from './redis.ts';

test('what was written survives SIGKILL, and not a wipe', async () => {
  await using redis = await startRedis();
  await redis.command('SET', 'key', 'value');
  await redis.restart();
  assert.equal(await redis.command('GET', 'key'), 'value');
  await redis.restart({ wipe: true });
  assert.equal(await redis.command('GET', 'key'), '');
});

test('a password and ACL users are asked for', async () => {
  await using redis = await startRedis({
    password: 'secret',
    users: [{ name: 'gateway', password: 'word', rules: '~llumnix:* +@read' }],
  });
  assert.equal(await redis.command('PING'), 'PONG');
  await assert.rejects(redis.command('--user', 'gateway', '--pass', 'wrong', 'PING'), /WRONGPASS/);
  const login = ['--user', 'gateway', '--pass', 'word'];
  assert.equal(await redis.command(...login, 'GET', 'llumnix:discovery:a'), '');
  await assert.rejects(redis.command(...login, 'GET', 'other'), /NOPERM/);
  await assert.rejects(redis.command(...login, 'SET', 'llumnix:discovery:a', '1'), /NOPERM/);
});
