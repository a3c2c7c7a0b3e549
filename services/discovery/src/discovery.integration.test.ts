import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Bus, connectNats } from '@llm-gateway/bus';
import { type Follower, followInstances } from '@llm-gateway/fleet';
import { type Instance, instancesChanged, instancesList } from '@llm-gateway/protocol';
import {
  type DiscoveryRecord,
  discoveryRecord,
  putEtcd,
  type RedisServer,
  respond,
  setRedis,
  startEngine,
  startEtcd,
  startEtcdCluster,
  startNats,
  startProxy,
  startRedis,
  startService,
  until,
} from '@llm-gateway/testing';

/** A member of the gateway that follows discovery, as ingress and router do. */
class Listener implements AsyncDisposable {
  readonly bus: Bus;
  readonly follower: Follower;
  readonly instances = new Map<string, Instance>();
  /** Sizes of the messages that changed something. */
  readonly changeBytes: number[] = [];
  /** Fewest instances there ever were since the first. */
  fewest = Number.POSITIVE_INFINITY;
  resets = 0;

  constructor(natsUrl: string) {
    this.bus = connectNats({ natsServers: natsUrl }, { name: 'listener' });
    this.bus.subscribe(instancesChanged, (message) => {
      const bytes = instancesChanged.payload.encode(message).byteLength;
      if (message.previous !== message.revision) this.changeBytes.push(bytes);
    });
    this.follower = followInstances(this.bus, {
      onChange: (upserts, removals) => {
        for (const instance of upserts) this.instances.set(instance.id, instance);
        for (const id of removals) this.instances.delete(id);
        this.#count();
      },
      onReset: (all) => {
        this.resets++;
        this.instances.clear();
        for (const instance of all) this.instances.set(instance.id, instance);
        this.#count();
      },
    });
  }

  get ids(): string[] {
    return [...this.instances.keys()].sort();
  }

  async shows(...expected: string[]): Promise<void> {
    await until(
      () => {
        assert.deepEqual(this.ids, expected);
        return true;
      },
      { timeoutMs: 20_000 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.follower[Symbol.dispose]();
    await this.bus[Symbol.asyncDispose]();
  }

  #count(): void {
    if (this.instances.size > 0 || this.fewest < Number.POSITIVE_INFINITY) {
      this.fewest = Math.min(this.fewest, this.instances.size);
    }
  }
}

const fast = ['--discovery-redis-refresh-interval-ms', '100', '--discovery-redis-socket-timeout', '0.3'];

function redisFlags(nats: { url: string }, redis: { port: number }, more: readonly string[] = []): string[] {
  const address = ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)];
  return ['--nats-servers', nats.url, ...address, ...fast, ...more];
}

async function put(redis: RedisServer, ...pods: (DiscoveryRecord & { podName: string })[]): Promise<void> {
  const values = pods.map((pod) => [
    `llumnix:discovery:${pod.podName}`,
    discoveryRecord({ timestampMs: Date.now(), ...pod }),
  ]);
  await setRedis(redis, Object.fromEntries(values));
}

function neutral(podName: string, port = 8000) {
  return { podName, instances: [{ port }] };
}

/**
 * Writes the records of pods again and again, as their registrars do, whether or not Redis is
 * there.
 */
function beating(redis: RedisServer, ...names: string[]): Disposable & { names: string[] } {
  const beats = { names, [Symbol.dispose]: () => clearInterval(timer) };
  const beat = () => put(redis, ...beats.names.map((name) => neutral(name))).catch(() => undefined);
  const timer = setInterval(beat, 300);
  return beats;
}

/** Flags of node that set the clock of a process. */
function clockOff(byMs: number): Record<string, string> {
  const script = `const now = Date.now; Date.now = () => now() + ${byMs};`;
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}` };
}

test('a static list is announced, with heartbeats, as soon as there is a bus', async () => {
  await using nats = await startNats();
  const endpoints = Array.from({ length: 3000 }, (_, at) => `engine-${at}:8000`);
  await using discovery = await startService('discovery', [
    ...['--nats-servers', nats.url, '--llm-backend-discovery', 'endpoints'],
    ...['--llm-backend-endpoints', endpoints.join()],
  ]);
  await using listener = new Listener(nats.url);
  await until(() => listener.instances.size === 3000);
  const heartbeats: number[] = [];
  listener.bus.subscribe(instancesChanged, ({ revision, previous, upserts }) => {
    if (revision === previous && upserts.length === 0) heartbeats.push(performance.now());
  });
  await until(() => heartbeats.length >= 3);
  assert.ok((heartbeats[2] ?? 0) - (heartbeats[0] ?? 0) < 4000);
  const metrics = await discovery.metrics();
  assert.equal(metrics.value('llm_gateway_store_up'), 1);
  assert.equal(metrics.value('llm_gateway_instances', { role: 'decode', state: 'live' }), 3000);
  await nats.kill();
  await until(async () => !(await discovery.ready()));
});

test('an invalid static list ends with 64 and says why', async () => {
  const lists = [
    { flags: ['--llm-backend-endpoints', ''], mistake: /empty/ },
    { flags: ['--llm-backend-endpoints', 'a:1,,b:2'], mistake: /"" is not host/ },
    { flags: ['--llm-backend-endpoints', 'a:60000', '--pd-disagg-protocol', 'vllm-kvt'], mistake: /KV transfer port/ },
  ];
  for (const { flags, mistake } of lists) {
    const options = { until: 'spawned' } as const;
    await using discovery = await startService(
      'discovery',
      ['--llm-backend-discovery', 'endpoints', ...flags],
      options,
    );
    assert.deepEqual(await discovery.exited, { code: 64, signal: null });
    assert.match(discovery.output(), mistake);
  }
});

test('records of another encoder are found; rubbish and expired ones hide nothing', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  const rank = { ip: '10.0.0.7', port: 8001, kvIp: '10.0.0.8', kvPort: 20001, dpRank: 1, dpSize: 2, model: 'm' };
  await put(
    redis,
    {
      podName: 'p',
      unknownFields: true,
      instances: [
        { ...rank, type: 'prefill' },
        { ...rank, type: 'engine' },
      ],
    },
    neutral('bare'),
    { ...neutral('expired'), timestampMs: Date.now() - 60_500 },
  );
  await redis.command('SET', 'llumnix:discovery:rubbish', 'rubbish');
  await redis.command('LPUSH', 'llumnix:discovery:list', 'x');
  await using discovery = await startService('discovery', redisFlags(nats, redis));
  await using listener = new Listener(nats.url);
  await listener.shows('bare_dp0', 'p_dp1');
  assert.deepEqual(listener.instances.get('p_dp1'), {
    id: 'p_dp1',
    roles: ['prefill'],
    host: '10.0.0.7',
    port: 8001,
    kvHost: '10.0.0.8',
    kvPort: 20001,
    dpRank: 1,
    dpSize: 2,
    model: 'm',
  });
  const metrics = await discovery.metrics();
  const skipped = (reason: string) => metrics.value('llm_gateway_records_skipped_total', { reason });
  assert.deepEqual(['undecodable', 'missing', 'invalid_instance'].map(skipped), [1, 1, 1]);
  assert.equal(metrics.value('llm_gateway_instances', { role: 'neutral', state: 'expired' }), 1);
  assert.equal(metrics.value('llm_gateway_instances', { state: 'live' }), 2);
});

test('a record whose key is longer than a message does not count, and hides no other', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await put(redis, neutral('a'));
  await using discovery = await startService('discovery', redisFlags(nats, redis));
  await using listener = new Listener(nats.url);
  await listener.shows('a_dp0');
  await put(redis, neutral('x'.repeat(1_200_000)));
  const skipped = async () =>
    (await discovery.metrics()).value('llm_gateway_records_skipped_total', { reason: 'too_large' });
  await until(async () => (await skipped()) === 1);
  await put(redis, neutral('b'));
  await listener.shows('a_dp0', 'b_dp0');
  await using late = new Listener(nats.url);
  await late.shows('a_dp0', 'b_dp0');
  assert.ok(discovery.output().length < 10_000);
});

test('pods join, move and leave with the next refresh', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await put(redis, neutral('stays'));
  await using _discovery = await startService(
    'discovery',
    redisFlags(nats, redis, ['--discovery-redis-refresh-interval-ms', '300']),
  );
  await using listener = new Listener(nats.url);
  await listener.shows('stays_dp0');
  const within = async (change: () => Promise<unknown>, seen: () => boolean): Promise<void> => {
    await change();
    await until(seen);
  };
  await within(
    () => put(redis, neutral('a')),
    () => listener.instances.has('a_dp0'),
  );
  await within(
    () => put(redis, neutral('a', 9000)),
    () => listener.instances.get('a_dp0')?.port === 9000,
  );
  await within(
    () => redis.command('DEL', 'llumnix:discovery:a'),
    () => !listener.instances.has('a_dp0'),
  );
  assert.equal(listener.resets, 1);
});

for (const [kind, byMs] of [
  ['fast', 600_000],
  ['slow', -600_000],
] as const) {
  test(`a reader whose clock is 10 minutes ${kind} neither empties nor resurrects the fleet`, async () => {
    await using nats = await startNats();
    await using redis = await startRedis();
    const ttl = ['--discovery-redis-status-ttl-ms', '2000'];
    await put(redis, neutral('lives'), neutral('ends'), { ...neutral('dead'), timestampMs: Date.now() - 2500 });
    using beats = beating(redis, 'lives', 'ends');
    await using _discovery = await startService('discovery', redisFlags(nats, redis, ttl), { env: clockOff(byMs) });
    await using listener = new Listener(nats.url);
    await listener.shows('ends_dp0', 'lives_dp0');
    beats.names = ['lives'];
    await listener.shows('lives_dp0');
    beats.names = ['lives', 'dead'];
    await listener.shows('dead_dp0', 'lives_dp0');
    assert.equal(listener.fewest, 1);
  });
}

test('while Redis is away longer than the TTL nothing expires; back empty, entries are held and then go or register again', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  const ttl = ['--discovery-redis-status-ttl-ms', '2000'];
  using beats = beating(redis, 'a', 'b');
  await using discovery = await startService('discovery', redisFlags(nats, redis, ttl));
  await using listener = new Listener(nats.url);
  await listener.shows('a_dp0', 'b_dp0');
  beats.names = [];
  await redis.kill();
  await until(() => !listener.follower.state().storeUp);
  const awayMs = performance.now();
  await until(async () => (await discovery.metrics()).value('llm_gateway_store_staleness_seconds') > 3);
  assert.ok(performance.now() - awayMs > 2000);
  assert.deepEqual(listener.ids, ['a_dp0', 'b_dp0']);
  assert.equal(await discovery.ready(), true);
  redis.wipe();
  await redis.start();
  await until(() => listener.follower.state().storeUp);
  assert.deepEqual(listener.ids, ['a_dp0', 'b_dp0']);
  assert.equal((await discovery.metrics()).value('llm_gateway_instances', { state: 'held' }), 2);
  beats.names = ['a'];
  await listener.shows('a_dp0');
  assert.equal((await discovery.metrics()).value('llm_gateway_instances', { state: 'live' }), 1);
});

test('a Redis that is flushed loses nobody, although a pod registers again before it is next read', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  const pods = Array.from({ length: 20 }, (_, at) => neutral(`pod-${at}`));
  await put(redis, ...pods);
  await using discovery = await startService('discovery', redisFlags(nats, redis));
  await using listener = new Listener(nats.url);
  await until(() => listener.instances.size === 20);
  // In one act, so that no poll comes in between.
  await setRedis(redis, { next: discoveryRecord({ timestampMs: Date.now(), ...neutral('pod-7') }) });
  const flush = "local next = redis.call('GET', KEYS[1]) redis.call('FLUSHALL') redis.call('SET', KEYS[2], next)";
  await redis.command('EVAL', flush, '2', 'next', 'llumnix:discovery:pod-7');
  const inState = async (state: string) => (await discovery.metrics()).value('llm_gateway_instances', { state });
  await until(async () => (await inState('held')) === 19);
  await put(redis, ...pods);
  await until(async () => (await inState('live')) === 20);
  assert.equal(listener.fewest, 20);
});

test('a replica that is cut off from its store is left for one that is not', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await using proxy = await startProxy(redis.port);
  await put(redis, neutral('a'));
  await using cutOff = await startService('discovery', redisFlags(nats, proxy));
  await using listener = new Listener(nats.url);
  await listener.shows('a_dp0');
  await using _other = await startService('discovery', redisFlags(nats, redis));
  const { replica } = listener.follower.state();
  await proxy.cut();
  await until(() => listener.follower.state().replica !== replica);
  assert.ok(listener.follower.state().storeUp);
  await put(redis, neutral('b'));
  await listener.shows('a_dp0', 'b_dp0');
  assert.equal(listener.fewest, 1);
  assert.equal((await cutOff.metrics()).value('llm_gateway_store_up'), 0);
  assert.equal(await cutOff.ready(), true);
});

test('a discovery that is killed and started again leaves no gap and no duplicate', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  await put(redis, neutral('a'), neutral('b'));
  await using first = await startService('discovery', redisFlags(nats, redis));
  await using listener = new Listener(nats.url);
  await listener.shows('a_dp0', 'b_dp0');
  const { replica } = listener.follower.state();
  await first.kill('SIGKILL');
  await put(redis, neutral('c'));
  await using _second = await startService('discovery', redisFlags(nats, redis));
  await listener.shows('a_dp0', 'b_dp0', 'c_dp0');
  assert.notEqual(listener.follower.state().replica, replica);
  assert.equal(listener.fewest, 2);
});

test('without its store a new discovery says nothing, and is ready when the store comes', async () => {
  await using nats = await startNats();
  await using cluster = await startEtcdCluster(3);
  const [first, second, third] = cluster.nodes;
  await Promise.all([second?.kill(), third?.kill()]);
  const endpoints = ['--discovery-etcd-endpoints', `127.0.0.1:1,${first?.endpoint}`];
  const flags = ['--nats-servers', nats.url, '--llm-backend-discovery', 'etcd', ...endpoints];
  const timeout = ['--discovery-etcd-dial-timeout', '1.5'];
  await using discovery = await startService('discovery', [...flags, ...timeout], { until: 'listening' });
  await using listener = new Listener(nats.url);
  await until(async () => (await discovery.metrics()).value('llm_gateway_store_failures_total') >= 2);
  assert.equal(await discovery.ready(), false);
  assert.equal((await discovery.metrics()).value('llm_gateway_store_up'), 0);
  await assert.rejects(listener.bus.request(instancesList, {}, { timeoutMs: 1000 }), { code: 'bus_no_responders' });
  await second?.start();
  await until(() => discovery.ready(), { timeoutMs: 30_000 });
  await until(() => listener.follower.state().synced);
});

test('thousands of instances are listed in pages, and what is sent is in proportion to what changes', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  const names = Array.from({ length: 5000 }, (_, at) => `pod-${String(at).padStart(4, '0')}`);
  await put(redis, ...names.map((name) => neutral(name)));
  await using _discovery = await startService(
    'discovery',
    redisFlags(nats, redis, ['--discovery-redis-refresh-interval-ms', '500']),
  );
  await using listener = new Listener(nats.url);
  await until(() => listener.instances.size === 5000, { timeoutMs: 20_000 });
  assert.deepEqual(listener.changeBytes, []);
  for (let round = 1; round <= 3; round++) {
    // Half of them heartbeat, which is no change; 200 move.
    await put(redis, ...names.slice(0, 2500).map((name) => neutral(name, 8000)));
    await put(redis, ...names.slice(-200).map((name) => neutral(name, 9000 + round)));
    await until(() => listener.instances.get('pod-4999_dp0')?.port === 9000 + round);
  }
  const sent = listener.changeBytes.reduce((sum, bytes) => sum + bytes, 0);
  assert.ok(sent < 3 * 200 * 300, `${sent} bytes`);
  assert.equal(listener.resets, 1);
});

test('etcd: a put is seen at once, also when the record is stale or its pod moved', async () => {
  await using nats = await startNats();
  await using etcd = await startEtcd();
  const key = (name: string) => `llumnix/discovery/${name}`;
  const record = (port: number, ageMs = 0) =>
    discoveryRecord({ timestampMs: Date.now() - ageMs, instances: [{ port }] });
  await putEtcd(etcd, key('stale'), record(1, 61_000));
  await putEtcd(etcd, key('a'), record(1));
  await putEtcd(etcd, key('rubbish'), Buffer.from('rubbish'));
  const flags = ['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', ` ${etcd.endpoint} `];
  const ttl = ['--discovery-etcd-lease-ttl', '3'];
  await using _discovery = await startService('discovery', ['--nats-servers', nats.url, ...flags, ...ttl]);
  await using listener = new Listener(nats.url);
  await listener.shows('a_dp0');
  await putEtcd(etcd, key('a'), record(2));
  await until(() => listener.instances.get('a_dp0')?.port === 2);
  await putEtcd(etcd, key('b'), record(1));
  await listener.shows('a_dp0', 'b_dp0');
  await etcd.command('del', key('a'));
  await listener.shows('b_dp0');
  await listener.shows();
});

test('etcd: a prefix that is deleted loses nobody, although a registrar puts its record again at once', async () => {
  await using nats = await startNats();
  await using etcd = await startEtcd();
  await using engine = await startEngine(() => respond(200));
  const foreign = (at: number) =>
    putEtcd(
      etcd,
      `llumnix/discovery/other-${at}`,
      discoveryRecord({ timestampMs: Date.now(), instances: [{ port: 8000 }] }),
    );
  for (let at = 0; at < 6; at++) await foreign(at);
  const flags = ['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', etcd.endpoint];
  const pod = ['--pod-name', 'ours', '--entrypoint-ip', '127.0.0.1', '--entrypoint-port', String(engine.port)];
  await using _registrar = await startService('registrar', [...pod, ...flags]);
  await using discovery = await startService('discovery', ['--nats-servers', nats.url, ...flags]);
  await using listener = new Listener(nats.url);
  await until(() => listener.instances.size === 7);
  await etcd.command('del', '--prefix', 'llumnix/discovery/');
  const inState = async (state: string) => (await discovery.metrics()).value('llm_gateway_instances', { state });
  await until(async () => (await inState('held')) === 6 && (await inState('live')) === 1);
  for (let at = 0; at < 6; at++) await foreign(at);
  await until(async () => (await inState('live')) === 7);
  assert.equal(listener.fewest, 7);
});

test('user and password of the flags are used for both stores, and are in no log', async () => {
  await using nats = await startNats();
  await using redis = await startRedis({
    password: 'redis-default-secret',
    users: [{ name: 'gateway', password: 'redis-user-secret', rules: '~llumnix:* -@all +scan +mget +set +del' }],
  });
  await using etcd = await startEtcd({ user: { name: 'gateway', password: 'etcd-user-secret' } });
  await using engine = await startEngine(() => respond(200));
  const inRedis = ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)];
  const asDefault = [...inRedis, '--discovery-redis-password', 'redis-default-secret'];
  const asUser = [
    ...inRedis,
    '--discovery-redis-username',
    'gateway',
    '--discovery-redis-password',
    'redis-user-secret',
  ];
  const inEtcd = ['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', etcd.endpoint];
  const asEtcdUser = [
    ...inEtcd,
    '--discovery-etcd-username',
    'gateway',
    '--discovery-etcd-password',
    'etcd-user-secret',
  ];
  const pod = ['--entrypoint-ip', '127.0.0.1', '--entrypoint-port', String(engine.port)];
  const bus = ['--nats-servers', nats.url];
  const outputs: string[] = [];
  for (const [at, flags] of [asDefault, asUser, asEtcdUser].entries()) {
    await using registrar = await startService('registrar', ['--pod-name', `pod-${at}`, ...pod, ...flags]);
    await using discovery = await startService('discovery', [...bus, ...flags]);
    await until(async () => (await discovery.metrics()).value('llm_gateway_instances', { state: 'live' }) === 1);
    outputs.push(registrar.output(), discovery.output());
    await registrar.stop();
  }
  assert.doesNotMatch(outputs.join('\n'), /-secret/);
});

for (const maxPayload of [32, 64]) {
  test(`a fleet that NATS cannot take in one message of ${maxPayload} KiB is listed all the same`, async () => {
    await using nats = await startNats({ config: `max_payload: ${maxPayload * 1024}` });
    const endpoints = Array.from({ length: 2000 }, (_, at) => `inference-engine-${at}.some-namespace.svc:8000`);
    const flags = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', endpoints.join()];
    await using discovery = await startService('discovery', ['--nats-servers', nats.url, ...flags]);
    await using listener = new Listener(nats.url);
    await until(() => listener.follower.state().synced);
    assert.equal(listener.instances.size, endpoints.length);
    assert.ok(!discovery.logs().some(({ level }) => level === 'warn'));
  });
}

test('a NATS whose messages are too small is named in the log', async () => {
  await using nats = await startNats({ config: 'max_payload: 16384' });
  const flags = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', '127.0.0.1:1'];
  await using discovery = await startService('discovery', ['--nats-servers', nats.url, ...flags]);
  const reason = 'max_payload of 16384 bytes, at least 32768 are needed';
  await until(() => discovery.logs().some((line) => line.level === 'warn' && line.reason === reason));
});
