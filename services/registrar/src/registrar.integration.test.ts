import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import { test } from 'node:test';
import {
  type EtcdServer,
  freePort,
  type RedisServer,
  type Service,
  startEtcd,
  startProxy,
  startRedis,
  startService,
  until,
} from '@llm-gateway/testing';

/** Ranks of one pod on consecutive ports, each of which can die and come back. */
class Engines implements AsyncDisposable {
  readonly port: number;
  readonly #servers: Server[] = [];

  private constructor(port: number) {
    this.port = port;
  }

  static async start(count: number): Promise<Engines> {
    for (;;) {
      const engines = new Engines(await freePort());
      try {
        for (let rank = 0; rank < count; rank++) await engines.revive(rank);
        return engines;
      } catch {
        // A port of the row belongs to another.
        await engines[Symbol.asyncDispose]();
      }
    }
  }

  async revive(rank: number): Promise<void> {
    const server = createServer((request, response) => response.writeHead(request.url === '/health' ? 200 : 404).end());
    this.#servers[rank] = server;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.on('error', reject);
    server.listen(this.port + rank, '127.0.0.1', resolve);
    await promise;
  }

  kill(rank: number): void {
    this.#servers[rank]?.close();
    this.#servers[rank]?.closeAllConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const rank of this.#servers.keys()) this.kill(rank);
  }
}

function flags(engines: Engines, more: readonly string[]): string[] {
  const pod = ['--pod-name', 'pod-a', '--entrypoint-ip', '127.0.0.1', '--entrypoint-port', String(engines.port)];
  return [...pod, '--heartbeat-interval-ms', '200', ...more];
}

function onRedis(redis: { port: number }): string[] {
  return ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)];
}

function onEtcd(etcd: { endpoint: string }, leaseTtl = 60): string[] {
  const endpoints = ['--discovery-etcd-endpoints', etcd.endpoint];
  return ['--llm-backend-discovery', 'etcd', ...endpoints, '--discovery-etcd-lease-ttl', String(leaseTtl)];
}

const redisKey = 'llumnix:discovery:pod-a';
const etcdKey = 'llumnix/discovery/pod-a';

/**
 * The record as `protoc --decode_raw` would show it: only that a rank's fields are in it. Empty
 * when there is none.
 */
async function redisRecord(redis: RedisServer): Promise<Buffer> {
  // redis-cli prints what is not text as escapes; --json is younger than the servers this runs on.
  const text = await redis.command('--no-raw', 'GET', redisKey);
  return text === '(nil)'
    ? Buffer.alloc(0)
    : Buffer.from(text.replace(/^"|"$/g, '').replace(/\\x([0-9a-f]{2})|\\([nrtab])|\\(.)/g, unescaped), 'latin1');
}

function unescaped(_: string, hex?: string, control?: string, plain?: string): string {
  if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16));
  if (control !== undefined) return { n: '\n', r: '\r', t: '\t', a: '\x07', b: '\b' }[control] ?? '';
  return plain ?? '';
}

/** The instances in a record's bytes, read field by field. */
function instances(record: Buffer): { port: number; dpRank: number; dpSize: number }[] {
  return fields(record)
    .filter(({ number }) => number === 4)
    .map(({ bytes }) => {
      const value = (wanted: number) => fields(bytes).find(({ number }) => number === wanted)?.value ?? 0;
      return { port: value(3), dpRank: value(6), dpSize: value(7) };
    });
}

function ranks(record: Buffer): number[] {
  return instances(record).map(({ dpRank }) => dpRank);
}

interface Field {
  number: number;
  value: number;
  bytes: Buffer;
}

function fields(message: Buffer): Field[] {
  const found: Field[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = message[at++] ?? 0;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const value = varint();
    const isBytes = tag % 8 === 2;
    const bytes = isBytes ? message.subarray(at, at + value) : Buffer.alloc(0);
    if (isBytes) at += value;
    found.push({ number: Math.floor(tag / 8), value, bytes });
  }
  return found;
}

async function holds(redis: RedisServer, expected: number[]): Promise<void> {
  await until(async () => {
    assert.deepEqual(ranks(await redisRecord(redis)), expected);
    return true;
  });
}

async function etcdHolds(etcd: EtcdServer, expected: boolean, timeoutMs = 10_000): Promise<void> {
  await until(async () => ((await etcd.command('get', '--keys-only', etcdKey)).trim() === etcdKey) === expected, {
    timeoutMs,
  });
}

test('the record holds the ranks that are healthy: one of four dead, all dead, back', async () => {
  await using redis = await startRedis();
  await using engines = await Engines.start(4);
  await using registrar = await startService('registrar', flags(engines, [...onRedis(redis), '--dp-size-local', '4']));
  await holds(redis, [0, 1, 2, 3]);
  engines.kill(2);
  await holds(redis, [0, 1, 3]);
  assert.deepEqual(
    instances(await redisRecord(redis)),
    [0, 1, 3].map((dpRank) => ({ port: engines.port + dpRank, dpRank, dpSize: 4 })),
    'each rank has a port of its own, and the size is that of the pod',
  );
  for (const rank of [0, 1, 3]) engines.kill(rank);
  await until(async () => (await redis.command('EXISTS', redisKey)) === '0');
  assert.equal(await registrar.ready(), false);
  assert.equal((await registrar.metrics()).value('llm_gateway_healthy_ranks'), 0);
  await engines.revive(1);
  await holds(redis, [1]);
  await until(() => registrar.ready());
});

test('the record has the fields of the message, and no others', async () => {
  await using redis = await startRedis();
  await using engines = await Engines.start(1);
  const kv = [
    '--kv-transfer-ip',
    '10.1.2.3',
    '--kv-transfer-port',
    '20001',
    '--instance-type',
    'prefill',
    '--model',
    'm',
  ];
  await using _registrar = await startService('registrar', flags(engines, [...onRedis(redis), ...kv]));
  await holds(redis, [0]);
  const pod = fields(await redisRecord(redis));
  assert.deepEqual(
    pod.map(({ number }) => number),
    [1, 3, 4],
  );
  assert.equal(pod[0]?.bytes.toString(), 'pod-a');
  assert.ok(Math.abs((pod[1]?.value ?? 0) - Date.now()) < 10_000);
  const instance = fields(pod[2]?.bytes ?? Buffer.alloc(0));
  assert.deepEqual(
    instance.map(({ number, value, bytes }) => [number, bytes.length > 0 ? bytes.toString() : value]),
    [
      [1, 'prefill'],
      [2, '127.0.0.1'],
      [3, engines.port],
      [4, '10.1.2.3'],
      [5, 20001],
      [7, 1],
      [8, 'm'],
      [9, 1],
    ],
  );
});

async function endsWithoutRecord(registrar: Service, signal: 'SIGTERM' | 'SIGINT'): Promise<void> {
  const exit = await registrar.kill(signal);
  assert.deepEqual(exit, { code: 0, signal: null });
}

test('SIGTERM and SIGINT remove the record before the exit, from Redis and from etcd', async () => {
  await using redis = await startRedis();
  await using etcd = await startEtcd();
  await using engines = await Engines.start(1);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    await using inRedis = await startService('registrar', flags(engines, onRedis(redis)));
    await using inEtcd = await startService('registrar', flags(engines, onEtcd(etcd)));
    await etcdHolds(etcd, true);
    await Promise.all([endsWithoutRecord(inRedis, signal), endsWithoutRecord(inEtcd, signal)]);
    assert.equal(await redis.command('EXISTS', redisKey), '0');
    assert.equal(await etcd.command('get', '--prefix', ''), '');
    assert.equal(await etcd.command('lease', 'list'), 'found 0 leases');
  }
});

test('a store that hangs does not keep a registrar from ending in time', async () => {
  await using redis = await startRedis();
  await using etcd = await startEtcd();
  await using redisProxy = await startProxy(redis.port);
  await using etcdProxy = await startProxy(etcd.port);
  await using engines = await Engines.start(1);
  await using inRedis = await startService('registrar', flags(engines, onRedis(redisProxy)));
  await using inEtcd = await startService('registrar', flags(engines, onEtcd(etcdProxy)));
  redisProxy.freeze();
  etcdProxy.freeze();
  await Promise.all([endsWithoutRecord(inRedis, 'SIGTERM'), endsWithoutRecord(inEtcd, 'SIGTERM')]);
});

test('a registrar outlives its store, and the record is back within a heartbeat', async () => {
  await using redis = await startRedis();
  await using etcd = await startEtcd();
  await using engines = await Engines.start(1);
  const slow = ['--heartbeat-interval-ms', '5000'];
  await using inRedis = await startService('registrar', [...flags(engines, onRedis(redis)), ...slow]);
  await using inEtcd = await startService('registrar', [...flags(engines, onEtcd(etcd)), ...slow]);
  await Promise.all([redis.restart({ wipe: true }), etcd.restart({ wipe: true })]);
  const sinceMs = performance.now();
  await holds(redis, [0]);
  await etcdHolds(etcd, true);
  assert.ok(performance.now() - sinceMs < 5000);
  await Promise.all([redis.kill(), etcd.kill()]);
  await until(async () => (await inRedis.metrics()).value('llm_gateway_store_up') === 0);
  await until(async () => (await inEtcd.metrics()).value('llm_gateway_store_up') === 0);
  assert.ok(!inRedis.ended && !inEtcd.ended);
});

test('a lease that is lost is replaced at once, and one whose registrar was killed runs out', async () => {
  await using etcd = await startEtcd();
  await using engines = await Engines.start(1);
  const slow = ['--heartbeat-interval-ms', '4900'];
  await using registrar = await startService('registrar', [...flags(engines, onEtcd(etcd, 5)), ...slow]);
  const [, lease = ''] = /([0-9a-f]{16})/.exec(await etcd.command('lease', 'list')) ?? [];
  await etcd.command('lease', 'revoke', lease);
  await etcdHolds(etcd, true, 3000);
  assert.ok(!(await etcd.command('lease', 'list')).includes(lease));
  await registrar.kill('SIGKILL');
  await etcdHolds(etcd, false);
});

test('a registrar without a name, an address or a store does not start', async () => {
  await using registrar = await startService('registrar', ['--llm-backend-discovery', 'endpoints'], {
    until: 'spawned',
  });
  assert.deepEqual(await registrar.exited, { code: 64, signal: null });
  assert.equal(registrar.lines().length, 3);
  for (const flag of ['--llm-backend-discovery', '--pod-name', '--entrypoint-ip'])
    assert.ok(registrar.output().includes(flag));
});

test('a flag that could only fail later ends with 64, and is named', async () => {
  const pod = ['--pod-name', 'pod-a', '--entrypoint-ip', '127.0.0.1'];
  for (const [flag, value] of [
    ['--health-path', '/a b'],
    ['--health-path', '/ü'],
    ['--health-path', 'health'],
    ['--pod-name', 'x'.repeat(254)],
    ['--discovery-redis-host', ''],
    ['--discovery-redis-host', 'redis:6379'],
    ['--discovery-redis-host', 'redis://redis'],
  ] as const) {
    const rest = pod.filter((_, at) => pod[at - (at % 2)] !== flag);
    await using registrar = await startService('registrar', [...rest, flag, value], { until: 'spawned' });
    assert.deepEqual(await registrar.exited, { code: 64, signal: null });
    assert.equal(registrar.lines().length, 1);
    assert.ok(registrar.output().includes(flag), registrar.output());
  }
});

test('a heartbeat that comes later than the record expires is refused, and the flags are named', async () => {
  const pod = ['--pod-name', 'pod-a', '--entrypoint-ip', '127.0.0.1'];
  for (const { ttl, heartbeatMs } of [
    { ttl: ['--discovery-redis-status-ttl-ms', '6000'], heartbeatMs: 6000 },
    { ttl: ['--llm-backend-discovery', 'etcd', '--discovery-etcd-lease-ttl', '5'], heartbeatMs: 10_000 },
  ]) {
    const heartbeat = ['--heartbeat-interval-ms', String(heartbeatMs)];
    await using registrar = await startService('registrar', [...pod, ...ttl, ...heartbeat], { until: 'spawned' });
    assert.deepEqual(await registrar.exited, { code: 64, signal: null });
    assert.equal(registrar.lines().length, 1);
    for (const flag of [heartbeat[0], ttl.at(-2)]) assert.ok(registrar.output().includes(String(flag)));
  }
});

test('a registrar is not ready while its engine is not healthy', async () => {
  await using redis = await startRedis();
  await using engines = await Engines.start(1);
  engines.kill(0);
  await using registrar = await startService('registrar', flags(engines, onRedis(redis)), { until: 'listening' });
  await until(async () => (await registrar.metrics()).value('llm_gateway_store_up') === 1);
  assert.equal(await registrar.ready(), false);
  await engines.revive(0);
  await until(() => registrar.ready());
});
