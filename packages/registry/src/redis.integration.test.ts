import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import type { GatewayError, Instance } from '@llm-gateway/protocol';
import {
  findBinary,
  freePort,
  startProcess,
  startProxy,
  startRedis,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { Keeper } from './keeper.ts';
import { decodeRecord, encodeRecord, redisKeyPrefix } from './record.ts';
import type { RedisSettings } from './redis.ts';
import { RedisPlace } from './redis-place.ts';
import { RedisReader } from './redis-reader.ts';
import { RedisStore } from './redis-store.ts';
import type { StoreEvent } from './store.ts';

const ttlMs = 60_000;

function settings(port: number, { username = '', password = '' } = {}): RedisSettings {
  const login = { username, password: () => password };
  const server = { addresses: [{ host: '127.0.0.1', port }], sentinel: null, db: 0, tls: null };
  return { namespace: '', ...server, ...login, socketTimeoutMs: 300, retryTimes: 1 };
}

function instance(podName: string, change: Partial<Instance> = {}): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '', kvPort: 0 };
  return { id: `${podName}_dp0`, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '', ...change };
}

/** An address that leads each new connection to where it points then, and lets the old ones be. */
async function startAddress(
  port: number,
): Promise<AsyncDisposable & { port: number; pointTo(port: number): void; connections: number }> {
  let target = port;
  const server = createServer((inbound) => {
    address.connections++;
    const outbound = connect(target, '127.0.0.1');
    for (const [from, to] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      from.on('error', () => undefined).on('close', () => to.destroy());
      from.pipe(to);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === 'object');
  const address = {
    port: bound.port,
    connections: 0,
    pointTo(next: number) {
      target = next;
    },
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
  return address;
}

/** A reader and what it said. */
class Reading implements AsyncDisposable {
  readonly events: StoreEvent[] = [];
  readonly skipped: string[] = [];
  readonly failures: GatewayError[] = [];
  readonly #reader: RedisReader;

  constructor(port: number, login: { username?: string; password?: string } = {}, intervalMs = 50) {
    this.#reader = new RedisReader(
      { ...settings(port, login), ttlMs, intervalMs },
      {
        onEvent: (event) => this.events.push(event),
        onSkipped: (reason, pod) => this.skipped.push(`${pod} ${reason}`),
        onFailure: (error) => this.failures.push(error),
      },
    );
  }

  get last(): StoreEvent | undefined {
    return this.events.at(-1);
  }

  /** Pods of the last event, when it is a load. */
  get pods(): string[] | null {
    return this.last?.kind === 'loaded' ? [...this.last.records.keys()].sort() : null;
  }

  async showsPods(expected: string[]): Promise<void> {
    await until(() => {
      assert.deepEqual(this.pods, expected);
      return true;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader[Symbol.asyncDispose]();
  }
}

async function put(
  store: RedisStore,
  podName: string,
  value: Buffer = encodeRecord(podName, Date.now(), [instance(podName)]),
) {
  await store.call((redis) => redis.set(`${redisKeyPrefix()}${podName}`, value));
}

test('a reader sees pods join, change and leave', async () => {
  await using redis = await startRedis();
  using store = new RedisStore(settings(redis.port));
  await put(store, 'a');
  await using reading = new Reading(redis.port);
  await reading.showsPods(['a']);
  await put(store, 'b');
  await reading.showsPods(['a', 'b']);
  await put(store, 'b', encodeRecord('b', 7, [instance('b', { host: '10.0.0.9' })]));
  await until(() => {
    const { last } = reading;
    return last?.kind === 'loaded' && last.records.get('b')?.instances[0]?.host === '10.0.0.9';
  });
  await store.call((redis) => redis.del(`${redisKeyPrefix()}a`));
  await reading.showsPods(['b']);
  assert.ok(reading.events.every((event) => event.kind === 'loaded' && !event.doubtful));
});

test('values that are no records are skipped, said once, and hide nothing', async () => {
  await using redis = await startRedis();
  using store = new RedisStore(settings(redis.port));
  await put(store, 'good');
  await put(store, 'rubbish', Buffer.from('rubbish'));
  await put(store, 'empty', Buffer.alloc(0));
  await store.call((client) => client.hset(`${redisKeyPrefix()}hash`, 'field', 'value'));
  await store.call((client) => client.set('another:key', 'value'));
  await using reading = new Reading(redis.port);
  await until(() => reading.events.length > 3);
  assert.deepEqual(reading.pods, ['good']);
  assert.deepEqual(reading.skipped.toSorted(), ['empty empty', 'hash missing', 'rubbish undecodable']);
});

test('thousands of records are read, and an unchanged one is the same object each time', async () => {
  await using redis = await startRedis();
  using store = new RedisStore(settings(redis.port));
  await store.shards();
  const names = Array.from({ length: 2500 }, (_, at) => `pod-${at}`);
  const records = names.map((name): [string, Buffer] => [
    `${redisKeyPrefix()}${name}`,
    encodeRecord(name, Date.now(), [instance(name)]),
  ]);
  // One command: the last of thousands would wait for all others, and each has to be answered in time.
  await store.call((redis) => redis.mset(new Map(records)));
  await using reading = new Reading(redis.port);
  await until(() => reading.events.length > 1);
  const [first, second] = reading.events;
  assert.ok(first?.kind === 'loaded' && second?.kind === 'loaded');
  assert.equal(first.records.size, 2500);
  assert.equal(first.records.get('pod-77'), second.records.get('pod-77'));
});

test('a reader tells that Redis is lost, and once it is back that what is missing was perhaps not deleted', async () => {
  await using redis = await startRedis();
  using store = new RedisStore(settings(redis.port));
  await put(store, 'a');
  await using reading = new Reading(redis.port);
  await reading.showsPods(['a']);
  await redis.kill();
  await until(() => reading.last?.kind === 'lost');
  await until(() => reading.failures.length > 1);
  assert.equal(reading.events.filter((event) => event.kind === 'lost').length, 1);
  assert.equal(reading.failures[0]?.code, 'store_unavailable');
  redis.wipe();
  await redis.start();
  await reading.showsPods([]);
  const back = reading.events.find((event, at) => event.kind === 'loaded' && reading.events[at - 1]?.kind === 'lost');
  assert.ok(back?.kind === 'loaded' && back.doubtful);
  await until(() => reading.last?.kind === 'loaded' && !reading.last.doubtful);
});

test('a Redis that is gone is noticed at once, not at the next poll', async () => {
  await using redis = await startRedis();
  await using reading = new Reading(redis.port, {}, 60_000);
  await reading.showsPods([]);
  await redis.kill();
  await until(() => reading.last?.kind === 'lost');
});

test('a connection that was only reset also leaves a doubt', async () => {
  await using redis = await startRedis();
  await using proxy = await startProxy(redis.port);
  await using reading = new Reading(proxy.port);
  await reading.showsPods([]);
  await proxy.cut();
  await proxy.restore();
  await until(() => reading.events.some((event) => event.kind === 'loaded' && event.doubtful));
});

test('a Redis that hangs is lost within the socket timeout and its retry', async () => {
  await using redis = await startRedis();
  await using proxy = await startProxy(redis.port);
  await using reading = new Reading(proxy.port);
  await reading.showsPods([]);
  proxy.freeze();
  const sinceMs = performance.now();
  await until(() => reading.last?.kind === 'lost');
  assert.ok(performance.now() - sinceMs < 5000);
  await proxy.restore();
  await reading.showsPods([]);
});

test('a reader logs in with a password, and as a user who may only read', async () => {
  await using redis = await startRedis({
    password: 'secret',
    users: [
      { name: 'reader', password: 'r', rules: `~${redisKeyPrefix()}* -@all +scan +mget` },
      { name: 'writer', password: 'w', rules: `~${redisKeyPrefix()}* -@all +set +del` },
    ],
  });
  await using keeper = new Keeper(
    new RedisPlace('a', { ...settings(redis.port, { username: 'writer', password: 'w' }), ttlMs }),
    {
      ttlMs,
      onFailure: (error) => assert.fail(error),
    },
  );
  keeper.set([instance('a')]);
  await using asDefault = new Reading(redis.port, { password: 'secret' });
  await using asReader = new Reading(redis.port, { username: 'reader', password: 'r' });
  await asDefault.showsPods(['a']);
  await asReader.showsPods(['a']);
  assert.ok(asDefault.last?.kind === 'loaded' && typeof asDefault.last.storeWallMs === 'number');
  assert.ok(asReader.last?.kind === 'loaded' && asReader.last.storeWallMs === null);
  assert.ok(await keeper.remove(1000));

  await using wrong = new Reading(redis.port, { password: 'wrong' });
  await until(() => wrong.failures.length > 0);
  assert.equal(wrong.last?.kind, 'lost');
  assert.match(wrong.failures[0]?.message ?? '', /WRONGPASS/);
});

test('a Redis whose TIME was taken away is read without', async () => {
  const port = await freePort();
  const flags = ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--rename-command', 'TIME', ''];
  await using redis = await startProcess(await findBinary('redis-server'), flags, { cwd: temporaryFolder() });
  await redis.waitForLine(/Ready to accept connections/);
  using store = new RedisStore(settings(port));
  await put(store, 'a');
  await using reading = new Reading(port);
  await reading.showsPods(['a']);
  assert.ok(reading.last?.kind === 'loaded' && reading.last.storeWallMs === null);
});

test('a keeper writes the record with a fresh timestamp and twice the TTL, and removes it', async () => {
  await using redis = await startRedis();
  using store = new RedisStore(settings(redis.port));
  await using keeper = new Keeper(new RedisPlace('a', { ...settings(redis.port), ttlMs }), {
    ttlMs,
    onFailure: (error) => assert.fail(error),
  });
  assert.equal(keeper.written, false);
  const beforeMs = Date.now();
  keeper.set([instance('a')]);
  await until(() => keeper.written);
  const key = `${redisKeyPrefix()}a`;
  const value = await store.call((client) => client.getBuffer(key));
  const { record } = decodeRecord('a', value);
  assert.deepEqual(record?.instances, [instance('a')]);
  assert.ok(record.timestampMs >= beforeMs && record.timestampMs <= Date.now());
  const leftMs = await store.call((client) => client.pttl(key));
  assert.ok(leftMs > 2 * ttlMs - 10_000 && leftMs <= 2 * ttlMs);
  keeper.set([]);
  await until(() => !keeper.written);
  assert.equal(await store.call((client) => client.exists(key)), 0);
  keeper.set([instance('a')]);
  assert.equal(await keeper.remove(5000), true);
  keeper.set([instance('a')]);
  assert.equal(await store.call((client) => client.exists(key)), 0, 'nothing is written after the removal');
});

test('a keeper leaves a master that was demoted for the one its address leads to by now, without a storm of connections', async () => {
  await using old = await startRedis();
  await using next = await startRedis();
  await using address = await startAddress(old.port);
  const failures: GatewayError[] = [];
  await using keeper = new Keeper(new RedisPlace('a', { ...settings(address.port), ttlMs }), {
    ttlMs,
    onFailure: (error) => failures.push(error),
  });
  keeper.set([instance('a')]);
  await until(() => keeper.written);
  await old.command('REPLICAOF', '127.0.0.1', String(next.port));
  keeper.set([instance('a')]);
  await until(() => failures.length >= 8, { timeoutMs: 20_000 });
  assert.match(failures[0]?.message ?? '', /READONLY/);
  assert.ok(address.connections < failures.length, `${address.connections} connections, ${failures.length} failures`);
  address.pointTo(next.port);
  await until(async () => (await next.command('EXISTS', `${redisKeyPrefix()}a`)) === '1');
  await until(() => keeper.storeUp);
});

test('a record is back as soon as Redis is, also an empty one', async () => {
  await using redis = await startRedis();
  const failures: GatewayError[] = [];
  await redis.kill();
  await using keeper = new Keeper(new RedisPlace('a', { ...settings(redis.port), ttlMs }), {
    ttlMs,
    onFailure: (error) => failures.push(error),
  });
  keeper.set([instance('a')]);
  await until(() => failures.length > 0);
  await redis.start();
  await until(() => keeper.written && keeper.storeUp);
  await redis.restart({ wipe: true });
  using store = new RedisStore(settings(redis.port));
  await until(async () => (await store.call((client) => client.exists(`${redisKeyPrefix()}a`))) === 1);
  await redis.kill();
  assert.equal(await keeper.remove(300), false);
});
