import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { GatewayError, Instance } from '@llm-gateway/protocol';
import { startEtcd, startEtcdCluster, startProxy, until } from '@llm-gateway/testing';
import { EtcdConnection, type EtcdSettings } from './etcd.ts';
import { EtcdPlace } from './etcd-place.ts';
import { EtcdReader } from './etcd-reader.ts';
import { Keeper } from './keeper.ts';
import { decodeRecord, encodeRecord, etcdKeyPrefix } from './record.ts';
import type { StoreEvent } from './store.ts';

const leaseTtlSeconds = 60;
const noTls = { caFile: '', certFile: '', keyFile: '', serverName: '' };

function settings(endpoints: string, change: Partial<EtcdSettings> = {}): EtcdSettings {
  const urls = endpoints.split(',').map((endpoint) => `http://${endpoint}`);
  return { namespace: '', urls, username: '', password: () => '', tls: noTls, dialTimeoutMs: 2000, ...change };
}

function instance(podName: string, change: Partial<Instance> = {}): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '', kvPort: 0 };
  return { id: `${podName}_dp0`, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '', ...change };
}

/** A reader, what it said, and the pods that follow from it. */
class Reading implements AsyncDisposable {
  readonly events: StoreEvent[] = [];
  readonly skipped: string[] = [];
  readonly failures: GatewayError[] = [];
  readonly hosts = new Map<string, string | undefined>();
  readonly #reader: EtcdReader;

  constructor(etcd: EtcdSettings, change: { ttlMs?: number; refreshIntervalMs?: number } = {}) {
    this.#reader = new EtcdReader(
      { ...etcd, ttlMs: 60_000, refreshIntervalMs: 3_600_000, ...change },
      {
        onEvent: (event) => this.#add(event),
        onSkipped: (reason, pod) => this.skipped.push(`${pod} ${reason}`),
        onFailure: (error) => this.failures.push(error),
      },
    );
  }

  loads(): (StoreEvent & { kind: 'loaded' })[] {
    return this.events.filter((event) => event.kind === 'loaded');
  }

  get lost(): boolean {
    return this.events.at(-1)?.kind === 'lost';
  }

  async loaded(): Promise<void> {
    await until(() => this.loads().length > 0);
  }

  async shows(expected: Record<string, string>): Promise<void> {
    await until(
      () => {
        assert.deepEqual(Object.fromEntries([...this.hosts].sort()), expected);
        return true;
      },
      { timeoutMs: 30_000 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader[Symbol.asyncDispose]();
  }

  #add(event: StoreEvent): void {
    this.events.push(event);
    if (event.kind === 'lost') return;
    if (event.kind === 'loaded') this.hosts.clear();
    else for (const name of event.deletes) this.hosts.delete(name);
    const records = event.kind === 'loaded' ? event.records : event.puts;
    for (const [name, record] of records) this.hosts.set(name, record.instances[0]?.host);
  }
}

async function put(connection: EtcdConnection, podName: string, host = '10.0.0.1'): Promise<void> {
  const lease = await connection.grant(600);
  await connection.put(
    `${etcdKeyPrefix()}${podName}`,
    encodeRecord(podName, Date.now(), [instance(podName, { host })]),
    lease,
  );
}

test('a reader loads everything and hears of each change at once', async () => {
  await using etcd = await startEtcd();
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  await put(connection, 'a');
  await etcd.command('put', `${etcdKeyPrefix()}rubbish`, 'rubbish');
  await etcd.command('put', 'another/key', 'value');
  await using reading = new Reading(settings(etcd.endpoint));
  await reading.shows({ a: '10.0.0.1' });
  await put(connection, 'b');
  await put(connection, 'a', '10.0.0.2');
  await reading.shows({ a: '10.0.0.2', b: '10.0.0.1' });
  await connection.delete(`${etcdKeyPrefix()}a`);
  await etcd.command('put', `${etcdKeyPrefix()}b`, 'rubbish');
  await reading.shows({});
  assert.deepEqual(reading.skipped, ['rubbish undecodable', 'b undecodable']);
  assert.equal(reading.loads().length, 1);
  assert.deepEqual(
    [...(reading.loads()[0]?.records.values() ?? [])].map(({ leased }) => leased),
    [true],
  );
});

test('a reader tells what one act deleted, also of that which is back already, and never of several acts', async () => {
  await using etcd = await startEtcd();
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  for (const name of ['a', 'b', 'c', 'd', 'e']) await put(connection, name);
  await using reading = new Reading(settings(etcd.endpoint));
  await reading.loaded();
  const together = () =>
    reading.events.flatMap((event) => (event.kind === 'changed' ? [event.deletedTogether.length] : []));
  for (const name of ['d', 'e']) await connection.delete(`${etcdKeyPrefix()}${name}`);
  await reading.shows({ a: '10.0.0.1', b: '10.0.0.1', c: '10.0.0.1' });
  assert.equal(Math.max(...together()), 1);
  await Promise.all([etcd.command('del', '--prefix', etcdKeyPrefix()), put(connection, 'c', '10.0.0.2')]);
  await until(() => together().includes(3));
});

test('a watch tells each change with the revision that made it, also of several in one response', async () => {
  await using etcd = await startEtcd();
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  for (const name of ['a', 'b']) await put(connection, name);
  for (const name of ['a', 'b']) await connection.delete(`${etcdKeyPrefix()}${name}`);
  const revisions: number[] = [];
  const hear = (_: unknown, revision: number) => revisions.push(revision);
  using _watch = await connection.watch({ prefix: etcdKeyPrefix() }, 2, { onPut: hear, onDelete: hear, onEnd() {} });
  await until(() => revisions.length === 4);
  assert.deepEqual(revisions, [2, 3, 4, 5]);
});

test('a reader says again and again that all is well, and loads everything again at the refresh interval', async () => {
  await using etcd = await startEtcd();
  await using reading = new Reading(settings(etcd.endpoint), { refreshIntervalMs: 1500 });
  await until(() => reading.loads().length === 2);
  assert.ok(reading.events.some((event) => event.kind === 'changed'));
  assert.ok(reading.loads().every(({ doubtful }) => !doubtful));
  assert.deepEqual(reading.failures, []);
});

test('more records than one read takes are loaded at one revision', async () => {
  await using etcd = await startEtcd();
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  const lease = await connection.grant(600);
  const value = encodeRecord('any', 1, [instance('any')]);
  const names = Array.from({ length: 1201 }, (_, at) => `pod-${at}`);
  // Each put has a deadline, and a disk takes them one after the other.
  for (let at = 0; at < names.length; at += 100) {
    const some = names.slice(at, at + 100);
    await Promise.all(some.map((name) => connection.put(`${etcdKeyPrefix()}${name}`, value, lease)));
  }
  const { entries } = await connection.read(etcdKeyPrefix());
  assert.deepEqual(
    entries.map(({ key }) => key),
    names.map((name) => `${etcdKeyPrefix()}${name}`).sort(),
  );
});

test('one of three nodes may die at any time', async () => {
  await using cluster = await startEtcdCluster(3);
  await using reading = new Reading(settings(cluster.endpoints));
  await reading.loaded();
  for (const node of cluster.nodes) {
    await node.kill();
    const other = cluster.nodes.find(({ running }) => running);
    assert.ok(other);
    await until(async () => {
      using connection = new EtcdConnection(other.url, settings(other.endpoint));
      await put(connection, `after-${node.port}`);
      return true;
    });
    await until(() => reading.hosts.has(`after-${node.port}`));
    await node.start();
  }
  assert.ok(
    reading.loads().every(({ doubtful }) => !doubtful || reading.events.some((event) => event.kind === 'lost')),
  );
});

test('without a quorum the store is lost; with it again, sooner than leases run out, nothing is in doubt', async () => {
  await using cluster = await startEtcdCluster(3);
  const [first, second, third] = cluster.nodes;
  assert.ok(first && second && third);
  using connection = new EtcdConnection(first.url, settings(first.endpoint));
  await put(connection, 'a');
  await using reading = new Reading(settings(cluster.endpoints));
  await reading.shows({ a: '10.0.0.1' });
  await Promise.all([second.kill(), third.kill()]);
  await until(() => reading.lost, { timeoutMs: 30_000 });
  await using late = new Reading(settings(cluster.endpoints));
  await until(() => late.failures.length > 3, { timeoutMs: 30_000 });
  assert.deepEqual(late.loads(), []);
  await second.start();
  await reading.shows({ a: '10.0.0.1' });
  await until(() => !reading.lost, { timeoutMs: 30_000 });
  assert.equal(reading.loads().at(-1)?.doubtful, false);
  await late.shows({ a: '10.0.0.1' });
});

test('a cluster that lost its data is loaded again at once, in doubt, and followed from there', async () => {
  await using cluster = await startEtcdCluster(3);
  const [first] = cluster.nodes;
  assert.ok(first);
  await using reading = new Reading(settings(cluster.endpoints));
  {
    using connection = new EtcdConnection(first.url, settings(first.endpoint));
    for (const name of ['a', 'b', 'c']) await put(connection, name);
  }
  await reading.shows({ a: '10.0.0.1', b: '10.0.0.1', c: '10.0.0.1' });
  await cluster.wipe();
  await cluster.start();
  await reading.shows({});
  assert.equal(reading.loads().at(-1)?.doubtful, true);
  using connection = new EtcdConnection(first.url, settings(first.endpoint));
  await put(connection, 'a', '10.0.0.2');
  await reading.shows({ a: '10.0.0.2' });
  assert.equal(reading.events.at(-1)?.kind, 'changed');
});

test('what happened and was compacted while the watch was cut is there when it is back', async () => {
  await using etcd = await startEtcd();
  await using proxy = await startProxy(etcd.port);
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  await put(connection, 'a');
  await put(connection, 'b');
  await using reading = new Reading(settings(proxy.endpoint));
  await reading.shows({ a: '10.0.0.1', b: '10.0.0.1' });
  await proxy.cut();
  await put(connection, 'c');
  await put(connection, 'a', '10.0.0.2');
  await connection.delete(`${etcdKeyPrefix()}b`);
  const { revision } = await connection.head(etcdKeyPrefix());
  await etcd.command('compact', String(revision));
  await proxy.restore();
  await reading.shows({ a: '10.0.0.2', c: '10.0.0.1' });
});

test('a watch from a compacted revision ends, and says why', async () => {
  await using etcd = await startEtcd();
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  for (let count = 0; count < 5; count++) await put(connection, 'a');
  await etcd.command('compact', '5');
  const ends: string[] = [];
  const sink = { onPut() {}, onDelete() {}, onEnd: (error: GatewayError) => ends.push(error.message) };
  await connection.watch({ prefix: etcdKeyPrefix() }, 2, sink).catch(() => undefined);
  await until(() => ends.length > 0);
  assert.match(ends[0] ?? '', /compacted at revision 5/);
});

test('a member that no longer answers is left for another, and alone it is lost within seconds', async () => {
  await using etcd = await startEtcd();
  await using proxy = await startProxy(etcd.port);
  await using reading = new Reading(settings(proxy.endpoint));
  await reading.loaded();
  const sinceMs = performance.now();
  proxy.freeze();
  await until(() => reading.lost);
  assert.ok(performance.now() - sinceMs < 8000);
  await proxy.restore();
  await until(() => !reading.lost);
});

test('what is missing after an outage of half a TTL was perhaps not deleted', async () => {
  await using etcd = await startEtcd();
  await using proxy = await startProxy(etcd.port);
  await using reading = new Reading(settings(proxy.endpoint), { ttlMs: 2000 });
  await reading.loaded();
  await proxy.cut();
  const sinceMs = performance.now();
  await until(() => reading.lost && performance.now() - sinceMs > 1500);
  await proxy.restore();
  await until(() => !reading.lost);
  assert.deepEqual(
    reading.loads().map(({ doubtful }) => doubtful),
    [false, true],
  );
});

test('a dead first endpoint does not matter', async () => {
  await using etcd = await startEtcd();
  await using proxy = await startProxy(etcd.port);
  await proxy.cut();
  for (let start = 0; start < 4; start++) {
    await using reading = new Reading(settings(`${proxy.endpoint},${etcd.endpoint}`));
    await reading.loaded();
    assert.equal(reading.events[0]?.kind, 'loaded');
  }
});

test('readers and keepers log in, and do without where a wiped cluster knows no users', async () => {
  await using etcd = await startEtcd({ user: { name: 'gateway', password: 'secret' } });
  const login = settings(etcd.endpoint, { username: 'gateway', password: () => 'secret' });
  await using reading = new Reading(login);
  await using keeper = new Keeper(new EtcdPlace('a', { ...login, leaseTtlSeconds }), { ttlMs: 60_000, onFailure() {} });
  keeper.set([instance('a')]);
  await reading.shows({ a: '10.0.0.1' });

  await using wrong = new Reading(settings(etcd.endpoint, { username: 'gateway', password: () => 'wrong' }));
  await using anonymous = new Reading(settings(etcd.endpoint));
  await using nameless = new Reading(settings(etcd.endpoint, { password: () => 'secret' }));
  await using wordless = new Reading(settings(etcd.endpoint, { username: 'gateway' }));
  await until(() => [wrong, anonymous, nameless, wordless].every(({ lost }) => lost));
  assert.match(wrong.failures[0]?.message ?? '', /authentication failed/);
  for (const { failures } of [anonymous, nameless, wordless]) {
    assert.match(failures[0]?.message ?? '', /user name is empty/, 'only one of the two is not sent');
  }

  await etcd.kill();
  etcd.wipe();
  await etcd.start();
  await until(() => reading.loads().length > 1 && !reading.lost, { timeoutMs: 30_000 });
  await reading.shows({ a: '10.0.0.1' });
});

test('a reader needs the right to read the prefix, a keeper to read and write it, and no more', async () => {
  await using etcd = await startEtcd({ user: { name: 'root', password: 'secret' } });
  for (const right of ['read', 'readwrite']) {
    await etcd.command('role', 'add', right);
    await etcd.command('role', 'grant-permission', right, '--prefix=true', right, etcdKeyPrefix());
    await etcd.command('user', 'add', `${right}-only:word`);
    await etcd.command('user', 'grant-role', `${right}-only`, right);
  }
  const as = (right: string) => settings(etcd.endpoint, { username: `${right}-only`, password: () => 'word' });
  await using reading = new Reading(as('read'));
  const options = { ttlMs: 60_000, onFailure: (error: GatewayError) => assert.fail(error) };
  await using keeper = new Keeper(new EtcdPlace('a', { ...as('readwrite'), leaseTtlSeconds: 3 }), options);
  keeper.set([instance('a')]);
  await reading.shows({ a: '10.0.0.1' });
  const writtenMs = performance.now();
  await until(() => performance.now() - writtenMs > 4000);
  await reading.shows({ a: '10.0.0.1' });
  assert.equal(await keeper.remove(5000), true);
  await reading.shows({});
  assert.deepEqual(reading.failures, []);
});

test('a keeper puts its record under a lease, and takes a new lease at once when it is lost', async () => {
  await using etcd = await startEtcd();
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  const options = { ttlMs: 60_000, onFailure: (error: GatewayError) => assert.fail(error) };
  await using keeper = new Keeper(new EtcdPlace('a', { ...settings(etcd.endpoint), leaseTtlSeconds }), options);
  keeper.set([instance('a'), instance('a', { id: 'a_dp1', dpRank: 1 })]);
  await until(() => keeper.written);
  const [entry] = (await connection.read(etcdKeyPrefix())).entries;
  assert.equal(entry?.leased, true);
  assert.deepEqual(
    decodeRecord('a', entry.value).record?.instances.map(({ id }) => id),
    ['a_dp0', 'a_dp1'],
  );
  const leases = async () => [...(await etcd.command('lease', 'list')).matchAll(/^[0-9a-f]{16}$/gm)].map(String);
  const [lease] = await leases();
  assert.ok(lease);
  await etcd.command('lease', 'revoke', lease);
  await until(async () => (await connection.read(etcdKeyPrefix())).entries.length === 1, { timeoutMs: 5000 });
  assert.notDeepEqual(await leases(), [lease]);
  assert.equal(await keeper.remove(5000), true);
  assert.deepEqual((await connection.read(etcdKeyPrefix())).entries, []);
  assert.deepEqual(await leases(), []);
});

for (const [kind, underWay] of [
  ['that is idle', false],
  ['that is just writing', true],
] as const) {
  test(`a keeper ${kind} removes its record in time although its member hangs`, async () => {
    await using cluster = await startEtcdCluster(3);
    const [hanging, second, third] = cluster.nodes;
    assert.ok(hanging && second && third);
    await using toSecond = await startProxy(second.port);
    await using toThird = await startProxy(third.port);
    await Promise.all([toSecond.cut(), toThird.cut()]);
    const endpoints = [hanging, toSecond, toThird].map(({ endpoint }) => endpoint).join();
    const place = new EtcdPlace('a', { ...settings(endpoints, { dialTimeoutMs: 15_000 }), leaseTtlSeconds });
    await using keeper = new Keeper(place, { ttlMs: 60_000, onFailure() {} });
    keeper.set([instance('a')]);
    await until(() => keeper.written);
    await Promise.all([toSecond.restore(), toThird.restore()]);
    await hanging.kill('SIGSTOP');
    // It may have led.
    await until(() => second.command('put', 'any', 'value'), { timeoutMs: 30_000 });
    if (underWay) {
      keeper.set([instance('a')]);
      await setImmediate();
    }
    assert.equal(await keeper.remove(6000), true);
    using connection = new EtcdConnection(second.url, settings(second.endpoint));
    assert.deepEqual((await connection.read(etcdKeyPrefix())).entries, []);
    await hanging.kill('SIGCONT');
  });
}

test('a keeper renews its lease, and without it the record goes', async () => {
  await using etcd = await startEtcd();
  await using proxy = await startProxy(etcd.port);
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  const place = new EtcdPlace('a', { ...settings(proxy.endpoint), leaseTtlSeconds: 2 });
  await using keeper = new Keeper(place, { ttlMs: 2000, onFailure() {} });
  keeper.set([instance('a')]);
  await until(() => keeper.written);
  const writtenMs = performance.now();
  for (; performance.now() - writtenMs < 4000; await sleep(100)) {
    assert.equal((await connection.read(etcdKeyPrefix())).entries.length, 1);
    assert.ok(keeper.written);
  }
  await proxy.cut();
  await until(async () => (await connection.read(etcdKeyPrefix())).entries.length === 0);
  await until(() => !keeper.written);
  await proxy.restore();
  await until(async () => (await connection.read(etcdKeyPrefix())).entries.length === 1);
});

test('a keeper that is told more often than it renews keeps its lease as well', async () => {
  await using etcd = await startEtcd();
  const leaseTtlSeconds = 2;
  const place = new EtcdPlace('a', { ...settings(etcd.endpoint), leaseTtlSeconds });
  await using keeper = new Keeper(place, { ttlMs: 60_000, onFailure() {} });
  const leases = () => etcd.command('lease', 'list');
  keeper.set([instance('a')]);
  await until(() => keeper.written);
  const first = await leases();
  const sinceMs = performance.now();
  await until(
    () => {
      keeper.set([instance('a')]);
      return performance.now() - sinceMs > 3 * leaseTtlSeconds * 1000;
    },
    { intervalMs: 200 },
  );
  assert.equal(await leases(), first);
});

test('a record is back as soon as a wiped cluster is, and a record of an earlier process is removed', async () => {
  await using etcd = await startEtcd();
  await etcd.command('put', `${etcdKeyPrefix()}a`, 'from before');
  const place = new EtcdPlace('a', { ...settings(etcd.endpoint), leaseTtlSeconds });
  await using keeper = new Keeper(place, { ttlMs: 60_000, onFailure() {} });
  keeper.set([]);
  using connection = new EtcdConnection(etcd.url, settings(etcd.endpoint));
  await until(async () => (await connection.read(etcdKeyPrefix())).entries.length === 0);
  keeper.set([instance('a')]);
  await until(() => keeper.written);
  await etcd.restart({ wipe: true });
  await until(async () => {
    using fresh = new EtcdConnection(etcd.url, settings(etcd.endpoint));
    return (await fresh.read(etcdKeyPrefix())).entries.length === 1;
  });
});
