import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Instance } from '@llm-gateway/protocol';
import { createCertificates, findBinary, startEtcd, temporaryFolder, until } from '@llm-gateway/testing';
import { EtcdConnection, type EtcdSettings } from './etcd.ts';
import { EtcdPlace } from './etcd-place.ts';
import { EtcdReader } from './etcd-reader.ts';
import { Keeper } from './keeper.ts';

const noTls = { caFile: '', certFile: '', keyFile: '', serverName: '' };

function settings(url: string, change: Partial<EtcdSettings> = {}): EtcdSettings {
  return { namespace: '', urls: [url], username: '', password: () => '', tls: noTls, dialTimeoutMs: 2000, ...change };
}

function instance(podName: string): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '', kvPort: 0 };
  return { id: `${podName}_dp0`, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '' };
}

/** The names of the pods that a reader sees, as it sees them, and why it does not. */
function watchPods(etcd: EtcdSettings): AsyncDisposable & { pods: Set<string>; reasons: string[] } {
  const pods = new Set<string>();
  const reasons: string[] = [];
  const reader = new EtcdReader(
    { ...etcd, ttlMs: 60_000, refreshIntervalMs: 3_600_000 },
    {
      onEvent(event) {
        if (event.kind === 'lost') return;
        if (event.kind === 'loaded') pods.clear();
        else for (const name of event.deletes) pods.delete(name);
        for (const name of (event.kind === 'loaded' ? event.records : event.puts).keys()) pods.add(name);
      },
      onSkipped() {},
      onFailure: (error) => reasons.push(error.message),
    },
  );
  return { pods, reasons, [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose]() };
}

function keep(podName: string, etcd: EtcdSettings): Keeper {
  const keeper = new Keeper(new EtcdPlace(podName, { ...etcd, leaseTtlSeconds: 60 }), {
    ttlMs: 60_000,
    onFailure() {},
  });
  keeper.set([instance(podName)]);
  return keeper;
}

test('etcd is reached over TLS by an IP address and by a name, with a client certificate and a password', async () => {
  const certificates = await createCertificates();
  const { ca: caFile, client } = certificates;
  await using etcd = await startEtcd({
    tls: { ...certificates.server, ca: caFile },
    user: { name: 'gateway', password: 'secret' },
  });
  const tls = { ...noTls, caFile, certFile: client.cert, keyFile: client.key };
  const login = { username: 'gateway', password: () => 'secret', tls };
  const port = new URL(etcd.url).port;
  await using keeper = keep('a', settings(`https://127.0.0.1:${port}`, login));
  await using byAddress = watchPods(settings(`https://127.0.0.1:${port}`, login));
  await using byName = watchPods(settings(`https://localhost:${port}`, login));
  await until(() => byAddress.pods.has('a') && byName.pods.has('a'));
  assert.ok(await keeper.remove(2000));
  await until(() => byAddress.pods.size === 0 && byName.pods.size === 0);

  await using strange = watchPods(settings(`https://127.0.0.1:${port}`, { ...login, tls: { ...tls, caFile: '' } }));
  await until(() => strange.reasons.some((reason) => /certificate/.test(reason)));
  const nobody = { ...login, tls: { ...tls, certFile: '', keyFile: '' } };
  await using anonymous = watchPods(settings(`https://127.0.0.1:${port}`, nobody));
  await until(() => anonymous.reasons.length > 0);
});

test("etcd's certificate must have the name of the host, or the one that was asked for", async () => {
  const certificates = await createCertificates();
  await using etcd = await startEtcd({ tls: certificates.server });
  const { port } = new URL(etcd.url);
  const as = (host: string, serverName: string) =>
    watchPods(settings(`https://${host}:${port}`, { tls: { ...noTls, caFile: certificates.ca, serverName } }));
  await using keeper = keep(
    'a',
    settings(`https://127.0.0.1:${port}`, { tls: { ...noTls, caFile: certificates.ca, serverName: 'localhost' } }),
  );
  await until(() => keeper.written);
  await using named = as('127.0.0.1', 'localhost');
  await until(() => named.pods.has('a'));
  await using other = as('localhost', 'elsewhere.example');
  await until(() => other.reasons.some((reason) => /elsewhere\.example/.test(reason)));
  assert.equal(other.pods.size, 0);
  // 127.0.0.2 is this machine as well, and not in the certificate.
  await using address = as('127.0.0.2', '');
  await until(() => address.reasons.length > 0);
  assert.equal(address.pods.size, 0);
});

test('a certificate that cannot be read is the reason, until it can be', async () => {
  const certificates = await createCertificates();
  await using etcd = await startEtcd({ tls: certificates.server });
  const caFile = join(temporaryFolder(), 'ca.pem');
  await using watched = watchPods(settings(etcd.url, { tls: { ...noTls, caFile } }));
  await until(() => watched.reasons.some((reason) => /ENOENT/.test(reason)));
  execFileSync('cp', [certificates.ca, caFile]);
  await using keeper = keep('a', settings(etcd.url, { tls: { ...noTls, caFile } }));
  await until(() => watched.pods.has('a') && keeper.written);
});

test('a password that was rotated is used at the next login', async () => {
  await using etcd = await startEtcd({ user: { name: 'root', password: 'root' } });
  const addUser = async (password: string) => {
    await etcd.command('user', 'add', `gateway:${password}`);
    await etcd.command('user', 'grant-role', 'gateway', 'root');
  };
  await addUser('old');
  let password = 'old';
  const login = settings(etcd.url, { username: 'gateway', password: () => password });
  await using watched = watchPods(login);
  await using keeper = keep('a', login);
  await until(() => watched.pods.has('a') && keeper.written);
  await etcd.command('user', 'delete', 'gateway');
  await addUser('new');
  await until(() => watched.reasons.some((reason) => /authentication failed/.test(reason)));
  password = 'new';
  await using next = keep('b', login);
  await until(() => watched.pods.has('b') && next.written);
  keeper.set([instance('a')]);
  await until(() => keeper.storeUp);
});

test('a login that ends is made again within the same connection', async () => {
  const folder = temporaryFolder();
  const openssl = await findBinary('openssl');
  execFileSync(openssl, ['genrsa', '-out', `${folder}/key.pem`, '2048'], { stdio: 'ignore' });
  execFileSync(openssl, ['rsa', '-in', `${folder}/key.pem`, '-pubout', '-out', `${folder}/pub.pem`], {
    stdio: 'ignore',
  });
  const token = `jwt,pub-key=${folder}/pub.pem,priv-key=${folder}/key.pem,sign-method=RS256,ttl=1s`;
  await using etcd = await startEtcd({
    user: { name: 'root', password: 'root' },
    flags: ['--auth-token', token],
  });
  using connection = new EtcdConnection(etcd.url, settings(etcd.url, { username: 'root', password: () => 'root' }));
  await connection.head('a');
  // The token's life is the thing under test.
  await sleep(2000);
  await connection.head('a');
  const lease = await connection.grant(60);
  assert.ok(await connection.put('a', Buffer.from('x'), lease));
});

test('installations of different namespaces share etcd and do not see each other', async () => {
  await using etcd = await startEtcd();
  await using eu = keep('a', settings(etcd.url, { namespace: 'eu.1' }));
  await using plain = keep('b', settings(etcd.url));
  await until(() => eu.written && plain.written);
  const keys = (await etcd.command('get', '--prefix', '--keys-only', '')).split('\n').filter(Boolean);
  assert.deepEqual(keys, ['eu.1/llumnix/discovery/a', 'llumnix/discovery/b']);
  await using ofEu = watchPods(settings(etcd.url, { namespace: 'eu.1' }));
  await using ofPlain = watchPods(settings(etcd.url));
  await until(() => ofEu.pods.size > 0 && ofPlain.pods.size > 0);
  assert.deepEqual([...ofEu.pods], ['a']);
  assert.deepEqual([...ofPlain.pods], ['b']);
});
