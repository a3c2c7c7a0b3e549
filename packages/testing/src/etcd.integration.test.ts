import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startEtcd, startEtcdCluster } from './etcd.ts';
import { until } from './until.ts';

test('one node: what was written survives SIGKILL, and not a wipe', async () => {
  await using etcd = await startEtcd();
  await etcd.command('put', 'key', 'value');
  await etcd.restart();
  assert.equal(await etcd.command('get', 'key', '--print-value-only'), 'value');
  await etcd.restart({ wipe: true });
  assert.equal(await etcd.command('get', 'key'), '');
});

test('a user and a password are asked for', async () => {
  await using etcd = await startEtcd({ user: { name: 'gateway', password: 'secret' } });
  await etcd.command('put', 'key', 'value');
  await assert.rejects(etcd.command('put', 'key', 'value', '--user=gateway:wrong'), /invalid user ID or password/);
});

test('three nodes: one may die, two may not, and a wiped one is filled again', async () => {
  await using cluster = await startEtcdCluster(3);
  const [first, second, third] = cluster.nodes;
  assert.ok(first && second && third);
  await first.command('put', 'key', 'value');
  await third.kill();
  await until(() => second.command('put', 'key', 'with two'), { timeoutMs: 30_000 });
  await second.kill();
  await assert.rejects(first.command('get', 'key', '--command-timeout=500ms'));
  await cluster.start();
  assert.equal(await third.command('get', 'key', '--print-value-only'), 'with two');
  await third.restart({ wipe: true });
  assert.equal(await third.command('get', 'key', '--print-value-only'), 'with two');
});

test('three nodes wiped together come back empty at the same addresses', async () => {
  await using cluster = await startEtcdCluster(3);
  const [first] = cluster.nodes;
  assert.ok(first);
  await first.command('put', 'key', 'value');
  await cluster.wipe();
  await cluster.start();
  assert.equal(await first.command('get', 'key'), '');
  assert.match(await first.command('put', 'key', 'value'), /OK/);
});
