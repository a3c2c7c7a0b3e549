import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import {
  createCertificates,
  type RedisServer,
  startRedis,
  startRedisCluster,
  startSentinel,
  until,
} from '@llm-gateway/testing';
import { Keeper } from './keeper.ts';
import type { RedisSettings } from './redis.ts';
import { RedisPlace } from './redis-place.ts';
import { RedisReader } from './redis-reader.ts';
import { readMasters } from './redis-store.ts';
import type { StoreEvent } from './store.ts';

const ttlMs = 60_000;
const noTls = { caFile: '', certFile: '', keyFile: '', serverName: '' };

function settings(ports: readonly number[], change: Partial<RedisSettings> = {}): RedisSettings {
  return {
    namespace: '',
    addresses: ports.map((port) => ({ host: '127.0.0.1', port })),
    sentinel: null,
    db: 0,
    username: '',
    password: () => '',
    tls: null,
    socketTimeoutMs: 1000,
    retryTimes: 1,
    ...change,
  };
}

function instance(podName: string): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '', kvPort: 0 };
  return { id: `${podName}_dp0`, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '' };
}

interface Watched extends AsyncDisposable {
  readonly events: StoreEvent[];
  readonly reasons: string[];
  /** Of the newest event that has records, sorted. */
  pods(): string[];
}

function watchPods(redis: RedisSettings): Watched {
  const events: StoreEvent[] = [];
  const reasons: string[] = [];
  const reader = new RedisReader(
    { ...redis, ttlMs, intervalMs: 50 },
    {
      onEvent: (event) => events.push(event),
      onSkipped() {},
      onFailure: (error) => reasons.push(error.message),
    },
  );
  return {
    events,
    reasons,
    pods() {
      const last = events.findLast((event) => event.kind === 'loaded');
      return last?.kind === 'loaded' ? [...last.records.keys()].sort() : [];
    },
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

function keep(podName: string, redis: RedisSettings): Keeper & { reasons: string[] } {
  const reasons: string[] = [];
  const options = { ttlMs, onFailure: (error: Error) => reasons.push(error.message) };
  const keeper = new Keeper(new RedisPlace(podName, { ...redis, ttlMs }), options);
  keeper.set([instance(podName)]);
  return Object.assign(keeper, { reasons });
}

const names = Array.from({ length: 30 }, (_, at) => `pod-${String(at).padStart(2, '0')}`);

test('a cluster of three shards is read whole and written, whichever node is asked', async () => {
  await using cluster = await startRedisCluster(3);
  const ports = cluster.nodes.map(({ port }) => port);
  await using stack = new AsyncDisposableStack();
  const keepers = names.map((name, at) => stack.use(keep(name, settings([ports[at % 3] ?? 0]))));
  await until(() => keepers.every((keeper) => keeper.written));
  for (const port of ports) {
    await using watched = watchPods(settings([port]));
    await until(() => watched.pods().length > 0);
    assert.deepEqual(watched.pods(), names);
    const [first] = watched.events;
    assert.ok(first?.kind === 'loaded' && !first.doubtful);
  }
  await using watched = watchPods(settings(ports));
  await until(() => watched.pods().length === 30);
  await Promise.all(keepers.slice(0, 20).map((keeper) => keeper.remove(2000)));
  await until(() => watched.pods().length === 10);
  assert.deepEqual(watched.reasons, []);
});

test('a cluster of one shard is read under rights that name its commands', async () => {
  await using cluster = await startRedisCluster(1, {
    users: [
      { name: 'reader', password: 'r', rules: '~llumnix:discovery:* -@all +scan +get +cluster|slots' },
      { name: 'writer', password: 'w', rules: '~llumnix:discovery:* -@all +set +del' },
    ],
  });
  const ports = cluster.nodes.map(({ port }) => port);
  const writer = settings(ports, { username: 'writer', password: () => 'w' });
  await using a = keep('a', writer);
  await using b = keep('b', writer);
  await using watched = watchPods(settings(ports, { username: 'reader', password: () => 'r' }));
  await until(() => watched.pods().length === 2 && a.written && b.written);
  assert.deepEqual(watched.reasons, []);
});

test('a shard that is away takes the whole cluster away, and it comes back', async () => {
  await using cluster = await startRedisCluster(3, { config: ['cluster-node-timeout 60000'] });
  const ports = cluster.nodes.map(({ port }) => port);
  await using stack = new AsyncDisposableStack();
  const keepers = names.map((name) => stack.use(keep(name, settings(ports))));
  await until(() => keepers.every((keeper) => keeper.written));
  await using watched = watchPods(settings(ports));
  await until(() => watched.pods().length === 30);
  await cluster.nodes[0]?.kill();
  await until(() => watched.events.at(-1)?.kind === 'lost');
  assert.equal(watched.pods().length, 30);
  await cluster.nodes[0]?.start();
  await until(() => watched.events.at(-1)?.kind === 'loaded', { timeoutMs: 30_000 });
  await until(() => watched.pods().length === 30);
});

test('a key whose slot is moved from shard to shard is seen at each poll, and can be written meanwhile', async () => {
  await using cluster = await startRedisCluster(2);
  const [from, to] = cluster.nodes;
  assert.ok(from && to);
  const ports = [from.port, to.port];
  const key = 'llumnix:discovery:a';
  const slot = await from.command('CLUSTER', 'KEYSLOT', key);
  const [source, target] = Number(slot) < 8192 ? [from, to] : [to, from];
  await using a = keep('a', settings(ports));
  await until(() => a.written);
  await using watched = watchPods(settings(ports));
  await until(() => watched.pods().length === 1);
  const [sourceId, targetId] = [await source.command('CLUSTER', 'MYID'), await target.command('CLUSTER', 'MYID')];
  const isSeen = async () => {
    const before = watched.events.length;
    await until(() => watched.events.length >= before + 4);
    for (const event of watched.events.slice(before)) {
      assert.ok(event.kind === 'loaded' && event.records.has('a'), JSON.stringify(watched.reasons));
    }
  };
  await target.command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', sourceId);
  await source.command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', targetId);
  await isSeen();
  await source.command('MIGRATE', '127.0.0.1', String(target.port), key, '0', '2000');
  await isSeen();
  const writtenAtMs = Date.now();
  a.set([instance('a')]);
  await until(() => {
    const last = watched.events.at(-1);
    return last?.kind === 'loaded' && (last.records.get('a')?.timestampMs ?? 0) >= writtenAtMs;
  });
  for (const node of [target, source]) await node.command('CLUSTER', 'SETSLOT', slot, 'NODE', targetId);
  await isSeen();
  assert.deepEqual(a.reasons, []);
});

test('a cluster with a slot that nobody serves is not read as if it were whole', () => {
  const asked = { host: '10.0.0.9', port: 6379 };
  const node = (host: string | null, port: number) => [host, port, 'id', []];
  assert.deepEqual(
    readMasters(
      [
        [0, 99, node('10.0.0.1', 1), node('10.0.0.3', 3)],
        [100, 16_383, node('', 2)],
      ],
      asked,
    ),
    [
      { host: '10.0.0.1', port: 1 },
      { host: '10.0.0.9', port: 2 },
    ],
  );
  assert.throws(() => readMasters([[0, 16_382, node('10.0.0.1', 1)]], asked), /serves 16383 of 16384 slots/);
  for (const wrong of [null, [[0]], [[0, 16_383, node('a b', 1)]], [[0, 16_383, node('a', 0)]], [['0', 1, []]]]) {
    assert.throws(() => readMasters(wrong, asked), /cluster/);
  }
});

async function replicaOf(master: RedisServer, password: string): Promise<RedisServer> {
  return startRedis({ password, config: [`replicaof 127.0.0.1 ${master.port}`, `masterauth ${password}`] });
}

test('the master that Sentinels name is used, also after a failover and with a Sentinel dead', async () => {
  await using master = await startRedis({ password: 'secret', config: ['masterauth secret'] });
  await using replica = await replicaOf(master, 'secret');
  await until(async () => (await master.command('INFO', 'replication')).includes('state=online'));
  const named = { name: 'main', port: master.port, password: 'secret' };
  await using sentinel = await startSentinel(named, { password: 'guard' });
  await until(() => /\+slave slave/.test(sentinel.output()), { timeoutMs: 20_000 });
  await using dead = await startSentinel(named, { password: 'guard' });
  await dead.kill();
  const redis = settings([dead.port, sentinel.port], {
    password: () => 'secret',
    sentinel: { master: 'main', username: '', password: () => 'guard', tls: null },
  });
  await using keeper = keep('a', redis);
  await using watched = watchPods(redis);
  await until(() => watched.pods().length === 1 && keeper.written);
  await master.kill();
  await until(() => watched.events.at(-1)?.kind === 'lost');
  await until(() => watched.events.at(-1)?.kind === 'loaded', { timeoutMs: 30_000 });
  keeper.set([instance('a')]);
  await until(async () => (await replica.command('EXISTS', 'llumnix:discovery:a')) === '1' && keeper.storeUp, {
    timeoutMs: 30_000,
  });
  await using wrong = watchPods({
    ...redis,
    sentinel: { master: 'main', username: '', password: () => 'wrong', tls: null },
  });
  await until(() => wrong.reasons.some((reason) => /WRONGPASS/.test(reason)));
  await using unknown = watchPods({
    ...redis,
    sentinel: { master: 'other', username: '', password: () => 'guard', tls: null },
  });
  await until(() => unknown.reasons.length > 0);
});

test('Redis is reached over TLS, by an address and under another name, with a client certificate', async () => {
  const certificates = await createCertificates();
  const { ca: caFile, client } = certificates;
  await using redis = await startRedis({ tls: { ...certificates.server, ca: caFile } });
  const tls = { ...noTls, caFile, certFile: client.cert, keyFile: client.key };
  await using keeper = keep('a', settings([redis.port], { tls }));
  await using byAddress = watchPods(settings([redis.port], { tls }));
  await using named = watchPods(settings([redis.port], { tls: { ...tls, serverName: 'localhost' } }));
  await until(() => keeper.written && byAddress.pods().length === 1 && named.pods().length === 1);
  await using other = watchPods(settings([redis.port], { tls: { ...tls, serverName: 'elsewhere.example' } }));
  await until(() => other.reasons.some((reason) => /elsewhere\.example/.test(reason)));
  await using strange = watchPods(settings([redis.port], { tls: { ...tls, caFile: '' } }));
  await until(() => strange.reasons.some((reason) => /certificate/.test(reason)));
  await using anonymous = watchPods(settings([redis.port], { tls: { ...tls, certFile: '', keyFile: '' } }));
  await until(() => anonymous.reasons.length > 0);
  await using unreadable = watchPods(settings([redis.port], { tls: { ...tls, caFile: `${caFile}.none` } }));
  await until(() => unreadable.reasons.some((reason) => /ENOENT/.test(reason)));
});

test('a cluster is read over TLS', async () => {
  const certificates = await createCertificates();
  const { ca: caFile, client } = certificates;
  const config = ['tls-cluster yes'];
  await using cluster = await startRedisCluster(2, { tls: { ...certificates.server, ca: caFile }, config });
  const tls = { ...noTls, caFile, certFile: client.cert, keyFile: client.key };
  const redis = settings([cluster.nodes[0]?.port ?? 0], { tls });
  await using stack = new AsyncDisposableStack();
  const keepers = names.slice(0, 6).map((name) => stack.use(keep(name, redis)));
  await using watched = watchPods(redis);
  await until(() => watched.pods().length === 6 && keepers.every((keeper) => keeper.written));
});

test('a password that was rotated is used at the next connection, and the reason is that it was wrong', async () => {
  const server = { password: 'old' };
  await using redis = await startRedis(server);
  let password = 'old';
  const login = settings([redis.port], { password: () => password });
  await using keeper = keep('a', login);
  await using watched = watchPods(login);
  await until(() => watched.pods().length === 1 && keeper.written);
  server.password = 'new';
  await redis.restart();
  keeper.set([instance('a')]);
  await until(() => [watched, keeper].every(({ reasons }) => reasons.some((reason) => /WRONGPASS/.test(reason))));
  password = 'new';
  await until(() => watched.events.at(-1)?.kind === 'loaded' && keeper.storeUp);
});

test('a database has an index, and installations of different namespaces share it', async () => {
  await using redis = await startRedis();
  await using plain = keep('a', settings([redis.port], { db: 3 }));
  await using eu = keep('b', settings([redis.port], { db: 3, namespace: 'eu.1' }));
  await until(() => plain.written && eu.written);
  const keys = (await redis.command('-n', '3', 'KEYS', '*')).split('\n').sort();
  assert.deepEqual(keys, ['eu.1:llumnix:discovery:b', 'llumnix:discovery:a']);
  await using ofPlain = watchPods(settings([redis.port], { db: 3 }));
  await using ofEu = watchPods(settings([redis.port], { db: 3, namespace: 'eu.1' }));
  await using ofOther = watchPods(settings([redis.port]));
  await until(() => [ofPlain, ofEu, ofOther].every(({ events }) => events.length > 0));
  assert.deepEqual([ofPlain.pods(), ofEu.pods(), ofOther.pods()], [['a'], ['b'], []]);
});
