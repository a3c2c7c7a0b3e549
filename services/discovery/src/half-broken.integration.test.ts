import assert from 'node:assert/strict';
import { mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  discoveryRecord,
  type EtcdServer,
  type RedisServer,
  respond,
  type Service,
  setRedis,
  startEngine,
  startEtcd,
  startNats,
  startProxy,
  startRedis,
  startService,
  until,
} from '@llm-gateway/testing';

const ttlMs = 2000;
const users = [
  { name: 'discovery', password: 'd', rules: '~llumnix:* -@all +scan +mget +time +info' },
  { name: 'registrar', password: 'r', rules: '~llumnix:* -@all +set +del' },
];

/** A discovery with registrars of healthy pods, in front of one store. */
class Fleet implements AsyncDisposable {
  readonly registrars: Service[] = [];
  readonly discovery: Service;
  readonly #stack: AsyncDisposableStack;

  private constructor(stack: AsyncDisposableStack, discovery: Service, registrars: readonly Service[]) {
    this.#stack = stack;
    this.discovery = discovery;
    this.registrars.push(...registrars);
  }

  static async start(pods: number, flags: { discovery: string[]; registrar: string[] }): Promise<Fleet> {
    await using stack = new AsyncDisposableStack();
    const nats = stack.use(await startNats());
    const engine = stack.use(await startEngine(() => respond(200)));
    const address = ['--entrypoint-ip', '127.0.0.1', '--entrypoint-port', String(engine.port)];
    const registrars = await Promise.all(
      Array.from({ length: pods }, async (_, at) => {
        const pod = ['--pod-name', `pod-${at}`, ...address, '--heartbeat-interval-ms', '300'];
        return stack.use(await startService('registrar', [...pod, ...flags.registrar]));
      }),
    );
    const discovery = stack.use(await startService('discovery', ['--nats-servers', nats.url, ...flags.discovery]));
    const fleet = new Fleet(stack.move(), discovery, registrars);
    await fleet.has({ live: pods });
    return fleet;
  }

  /** Waits for this many instances in each state; at no moment may fewer be listed. */
  async has(expected: { live?: number; held?: number }): Promise<void> {
    const { live = 0, held = 0 } = expected;
    let fewest = Number.POSITIVE_INFINITY;
    await until(
      async () => {
        const metrics = await this.discovery.metrics();
        const count = (state: string) => metrics.value('llm_gateway_instances', { state });
        assert.equal(metrics.value('llm_gateway_instances_held'), count('held'));
        if (count('live') + count('held') > 0) fewest = Math.min(fewest, count('live') + count('held'));
        return count('live') === live && count('held') === held;
      },
      { timeoutMs: 30_000, what: `${live} live and ${held} held instances` },
    );
    assert.ok(fewest >= live + held, `${fewest} were listed`);
  }

  /** One line of discovery says why pods are held. */
  async names(reason: string): Promise<void> {
    await until(() =>
      this.discovery
        .logs()
        .some((line) => /keeping their instances listed/.test(String(line.msg)) && reasons(line).includes(reason)),
    );
    assert.equal((await this.discovery.metrics()).value('llm_gateway_store_up'), 1);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

function reasons(line: Record<string, unknown>): unknown[] {
  return Array.isArray(line.reasons) ? line.reasons : [];
}

function inRedis(redis: { port: number }, user: 'discovery' | 'registrar'): string[] {
  return [
    ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
    ...['--discovery-redis-username', user, '--discovery-redis-password', user.slice(0, 1)],
    ...['--discovery-redis-status-ttl-ms', String(ttlMs), '--discovery-redis-refresh-interval-ms', '100'],
  ];
}

function inEtcd(etcd: { endpoint: string }): string[] {
  return [
    ...['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', etcd.endpoint],
    ...['--discovery-etcd-lease-ttl', '3', '--discovery-etcd-dial-timeout', '1'],
  ];
}

/** Makes Redis fail to write its own file: there is a folder of that name. */
async function obstructSaving(redis: RedisServer): Promise<() => Promise<void>> {
  const [, folder = ''] = (await redis.command('CONFIG', 'GET', 'dir')).split('\n');
  const obstacle = join(folder, 'dump.rdb');
  mkdirSync(obstacle);
  await redis.command('CONFIG', 'SET', 'save', '3600 1');
  await redis.command('BGSAVE');
  await until(async () => (await redis.command('INFO', 'persistence')).includes('rdb_last_bgsave_status:err'));
  return async () => {
    rmdirSync(obstacle);
    await redis.command('BGSAVE');
    await until(async () => (await redis.command('INFO', 'persistence')).includes('rdb_last_bgsave_status:ok'));
  };
}

const refusing: readonly {
  readonly reason: string;
  readonly on: (redis: RedisServer) => Promise<() => Promise<unknown>>;
}[] = [
  {
    reason: 'no_space',
    async on(redis) {
      await redis.command('CONFIG', 'SET', 'maxmemory', '1');
      return () => redis.command('CONFIG', 'SET', 'maxmemory', '0');
    },
  },
  {
    reason: 'read_only',
    async on(redis) {
      await redis.command('REPLICAOF', '127.0.0.1', '1');
      return () => redis.command('REPLICAOF', 'NO', 'ONE');
    },
  },
  {
    reason: 'no_replicas',
    async on(redis) {
      await redis.command('CONFIG', 'SET', 'min-replicas-to-write', '1');
      return () => redis.command('CONFIG', 'SET', 'min-replicas-to-write', '0');
    },
  },
  { reason: 'not_saved', on: obstructSaving },
  {
    reason: 'not_allowed',
    async on(redis) {
      await redis.command('ACL', 'SETUSER', 'registrar', '-set');
      return () => redis.command('ACL', 'SETUSER', 'registrar', '+set');
    },
  },
  {
    reason: 'login',
    async on(redis) {
      await redis.command('ACL', 'SETUSER', 'registrar', 'resetpass', '>rotated');
      await redis.command('CLIENT', 'KILL', 'USER', 'registrar');
      return () => redis.command('ACL', 'SETUSER', 'registrar', 'resetpass', '>r');
    },
  },
];

for (const pods of [3, 1]) {
  test(`a Redis that refuses writes costs no pod its place, however it refuses, and both sides say why: of ${pods}`, async () => {
    await using redis = await startRedis({ users });
    await using fleet = await Fleet.start(pods, {
      discovery: inRedis(redis, 'discovery'),
      registrar: inRedis(redis, 'registrar'),
    });
    const [registrar] = fleet.registrars;
    assert.ok(registrar);
    for (const { reason, on } of refusing) {
      const repair = await on(redis);
      await fleet.has({ held: pods });
      await fleet.names(reason);
      await until(async () => !(await registrar.ready()));
      const metrics = await registrar.metrics();
      assert.equal(metrics.value('llm_gateway_record_refused', { reason }), 1);
      assert.equal(metrics.value('llm_gateway_store_up'), 1, 'it answers');
      assert.ok(metrics.value('llm_gateway_store_failures_total', { reason }) > 0);
      // Also when Redis has dropped the records that nobody writes.
      const keys = async () =>
        (await redis.command('KEYS', 'llumnix:*')).split('\n').filter((key) => key !== '').length;
      if (reason === 'no_space') await until(async () => (await keys()) === 0);
      await fleet.has({ held: pods });
      await repair();
      await fleet.has({ live: pods });
      await until(() => registrar.ready());
    }
    const lines = registrar.logs().filter((line) => /refuses the record/.test(String(line.msg)));
    assert.deepEqual(
      lines.map((line) => line.reason),
      refusing.map(({ reason }) => reason),
      'each once',
    );
  });
}

test('of pods that are held because Redis is full, one whose record is deleted leaves at once; after it, one that died leaves in a TTL', async () => {
  await using redis = await startRedis({ users });
  await using fleet = await Fleet.start(4, {
    discovery: inRedis(redis, 'discovery'),
    registrar: inRedis(redis, 'registrar'),
  });
  await redis.command('CONFIG', 'SET', 'maxmemory', '1');
  await fleet.has({ held: 4 });
  await fleet.registrars[0]?.stop();
  const counted = async () => (await fleet.discovery.metrics()).value('llm_gateway_instances', { state: 'held' });
  await until(async () => (await counted()) === 3);
  await fleet.registrars[1]?.kill('SIGKILL');
  await redis.command('CONFIG', 'SET', 'maxmemory', '0');
  await until(async () => (await counted()) === 0);
  assert.equal((await fleet.discovery.metrics()).value('llm_gateway_instances', { state: 'live' }), 2);
});

test('one of several pods that is killed together with its registrar still expires, and so does the only one', async () => {
  await using redis = await startRedis({ users });
  await using fleet = await Fleet.start(2, {
    discovery: inRedis(redis, 'discovery'),
    registrar: inRedis(redis, 'registrar'),
  });
  for (const [at, left] of [
    [0, 1],
    [1, 0],
  ] as const) {
    await fleet.registrars[at]?.kill('SIGKILL');
    await until(async () => {
      const metrics = await fleet.discovery.metrics();
      assert.equal(metrics.value('llm_gateway_instances_held'), 0);
      return metrics.value('llm_gateway_instances', { state: 'live' }) === left;
    });
  }
});

test('registrars that are cut off from Redis keep their pods listed', async () => {
  await using redis = await startRedis({ users });
  await using proxy = await startProxy(redis.port);
  await using fleet = await Fleet.start(3, {
    discovery: inRedis(redis, 'discovery'),
    registrar: inRedis(proxy, 'registrar'),
  });
  await proxy.cut();
  await fleet.has({ held: 3 });
  await fleet.names('unknown');
  const [registrar] = fleet.registrars;
  // Discovery may see the silence before the registrar's next write fails.
  await until(async () => (await registrar?.metrics())?.value('llm_gateway_store_up') === 0);
  assert.equal((await registrar?.metrics())?.value('llm_gateway_record_refused'), 0);
  await until(() => /discovery store unreachable/.test(registrar?.output() ?? ''));
  await until(async () => (await redis.command('DBSIZE')) === '0');
  await fleet.has({ held: 3 });
  await proxy.restore();
  await fleet.has({ live: 3 });
});

test('pods whose records Redis evicts, again and again, stay listed', async () => {
  await using redis = await startRedis({ users });
  await using fleet = await Fleet.start(3, {
    discovery: inRedis(redis, 'discovery'),
    registrar: [...inRedis(redis, 'registrar'), '--heartbeat-interval-ms', '1500'],
  });
  await redis.command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-random');
  const fill = "for i=1,2000 do redis.pcall('SET','cache:'..ARGV[1]..':'..i,string.rep('x',1000)) end";
  const [, used = '0'] = /used_memory:(\d+)/.exec(await redis.command('INFO', 'memory')) ?? [];
  await redis.command('CONFIG', 'SET', 'maxmemory', String(Number(used) + 1_000_000));
  const untilMs = performance.now() + 3 * ttlMs;
  for (let round = 0; performance.now() < untilMs; round++) {
    await redis.command('EVAL', fill, '0', String(round));
    const metrics = await fleet.discovery.metrics();
    const listed = ['live', 'held'].map((state) => metrics.value('llm_gateway_instances', { state }));
    assert.equal(
      listed.reduce((sum, one) => sum + one, 0),
      3,
    );
  }
  await fleet.names('evicts');
  assert.equal((await fleet.discovery.metrics()).value('llm_gateway_store_trouble', { trouble: 'evicts' }), 1);
  await redis.command('CONFIG', 'SET', 'maxmemory', '0');
  await fleet.has({ live: 3 });
});

test('without the right to INFO pods are held all the same, and the reason is unknown', async () => {
  await using redis = await startRedis({ users });
  await redis.command('ACL', 'SETUSER', 'discovery', '-info');
  await using fleet = await Fleet.start(2, {
    discovery: inRedis(redis, 'discovery'),
    registrar: inRedis(redis, 'registrar'),
  });
  await redis.command('CONFIG', 'SET', 'maxmemory', '1');
  await fleet.has({ held: 2 });
  await fleet.names('unknown');
});

/** Fills an etcd to its quota, by its own means. */
async function fill(etcd: EtcdServer): Promise<() => Promise<void>> {
  await until(
    async () => {
      const put = { key: 'ZmlsbA==', value: Buffer.alloc(400_000, 'x').toString('base64') };
      const response = await fetch(`${etcd.url}/v3/kv/put`, { method: 'POST', body: JSON.stringify(put) });
      return (await response.text()).includes('database space exceeded');
    },
    { timeoutMs: 60_000 },
  );
  return async () => {
    const [, revision = ''] = /"revision":(\d+)/.exec(await etcd.command('endpoint', 'status', '-w', 'json')) ?? [];
    await etcd.command('compact', revision);
    await etcd.command('defrag');
    await etcd.command('alarm', 'disarm');
  };
}

test('an etcd without space costs no pod its place, and one that ends there leaves at once', async () => {
  await using etcd = await startEtcd({ flags: ['--quota-backend-bytes', '8000000'] });
  await using fleet = await Fleet.start(3, { discovery: inEtcd(etcd), registrar: inEtcd(etcd) });
  const repair = await fill(etcd);
  await fleet.has({ held: 3 });
  await fleet.names('no_space');
  const [first, second] = fleet.registrars;
  assert.equal((await first?.metrics())?.value('llm_gateway_record_refused', { reason: 'no_space' }), 1);
  await first?.stop();
  await fleet.has({ held: 2 });
  // Leases go on being renewed, so that the one of a registrar that died runs out.
  await second?.kill('SIGKILL');
  await fleet.has({ held: 1 });
  await repair();
  await fleet.has({ live: 1 });
});

test('registrars that are cut off from etcd keep their pods listed, although their leases run out', async () => {
  await using etcd = await startEtcd();
  await using proxy = await startProxy(etcd.port);
  await using fleet = await Fleet.start(3, { discovery: inEtcd(etcd), registrar: inEtcd(proxy) });
  await proxy.cut();
  await fleet.has({ held: 3 });
  await until(async () => (await etcd.command('get', '--prefix', '--keys-only', 'llumnix/')).trim() === '', {
    timeoutMs: 20_000,
  });
  await fleet.has({ held: 3 });
  await fleet.names('unknown');
  await proxy.restore();
  await fleet.has({ live: 3 });
});

test('registrars whose user may not write in etcd any more keep their pods listed', async () => {
  await using etcd = await startEtcd({ user: { name: 'gateway', password: 'g' } });
  await etcd.command('role', 'add', 'writer');
  await etcd.command('role', 'grant-permission', 'writer', 'readwrite', '--prefix', 'llumnix/discovery/');
  await etcd.command('user', 'add', 'registrar:r');
  await etcd.command('user', 'grant-role', 'registrar', 'writer');
  const as = (user: string, password: string) => [
    ...['--discovery-etcd-username', user, '--discovery-etcd-password', password],
    ...inEtcd(etcd),
  ];
  await using fleet = await Fleet.start(2, { discovery: as('gateway', 'g'), registrar: as('registrar', 'r') });
  await etcd.command('role', 'revoke-permission', 'writer', '--prefix', 'llumnix/discovery/');
  await etcd.command('role', 'grant-permission', 'writer', 'read', '--prefix', 'llumnix/discovery/');
  await fleet.has({ held: 2 });
  await fleet.names('unknown');
  const metrics = await fleet.registrars[0]?.metrics();
  assert.equal(metrics?.value('llm_gateway_record_refused', { reason: 'not_allowed' }), 1);
  await etcd.command('role', 'grant-permission', 'writer', 'readwrite', '--prefix', 'llumnix/discovery/');
  await fleet.has({ live: 2 });
});

test('a name under which two pods write is reported', async () => {
  await using redis = await startRedis({ users });
  await using fleet = await Fleet.start(1, {
    discovery: inRedis(redis, 'discovery'),
    registrar: inRedis(redis, 'registrar'),
  });
  await using other = await startEngine(() => respond(200));
  const pod = ['--pod-name', 'pod-0', '--entrypoint-ip', '127.0.0.1', '--entrypoint-port', String(other.port)];
  await using _second = await startService('registrar', [
    ...pod,
    ...['--heartbeat-interval-ms', '450'],
    ...inRedis(redis, 'registrar'),
  ]);
  await until(async () => (await fleet.discovery.metrics()).value('llm_gateway_shared_pod_names') === 1);
  await fleet.discovery.waitForLine(/two pods write/);
  const [line] = fleet.discovery.logs().filter(({ msg }) => /two pods write/.test(String(msg)));
  assert.deepEqual(line?.pods, ['pod-0']);
});

test('records that point outside the allowed networks do not count, nor do those with ports that are none', async () => {
  await using nats = await startNats();
  await using redis = await startRedis();
  const record = (ip: string, port: number, kvIp = '') =>
    discoveryRecord({ timestampMs: Date.now(), instances: [{ ip, port, kvIp }] });
  const records = {
    inside: record('10.1.2.3', 8000, '10.1.2.4'),
    inside6: record('fd00::1', 8000),
    outside: record('169.254.169.254', 80),
    'outside-kv': record('10.1.2.3', 8000, '192.168.0.1'),
    named: record('metadata.internal', 80),
    zero: record('10.1.2.3', 0),
    high: record('10.1.2.3', 65_536),
  };
  await setRedis(
    redis,
    Object.fromEntries(Object.entries(records).map(([name, value]) => [`llumnix:discovery:${name}`, value])),
  );
  await using discovery = await startService('discovery', [
    ...['--nats-servers', nats.url, '--instance-networks', '10.0.0.0/8, fd00::/8'],
    ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
  ]);
  await until(async () => (await discovery.metrics()).value('llm_gateway_instances', { state: 'live' }) === 2);
  const metrics = await discovery.metrics();
  const skipped = (reason: string) => metrics.value('llm_gateway_records_skipped_total', { reason });
  assert.deepEqual(['outside_networks', 'invalid_instance'].map(skipped), [3, 2]);
});
