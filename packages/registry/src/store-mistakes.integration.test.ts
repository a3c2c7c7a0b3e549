import assert from 'node:assert/strict';
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createCertificates, temporaryFolder } from '@llm-gateway/testing';
import { readAddresses } from './addresses.ts';
import { type StoreValues, storeMistakes } from './open.ts';
import { storeOptions } from './options.ts';

const defaults: StoreValues = {
  namespace: '',
  llmBackendDiscovery: 'redis',
  discoveryRedisHost: 'redis',
  discoveryRedisPort: 6379,
  discoveryRedisClusterNodes: '',
  discoveryRedisSentinels: '',
  discoveryRedisSentinelMaster: '',
  discoveryRedisSentinelUsername: '',
  discoveryRedisSentinelPassword: () => '',
  discoveryRedisSentinelTls: false,
  discoveryRedisDb: 0,
  discoveryRedisTls: false,
  discoveryRedisTlsCaFile: '',
  discoveryRedisTlsCertFile: '',
  discoveryRedisTlsKeyFile: '',
  discoveryRedisTlsServerName: '',
  discoveryRedisUsername: '',
  discoveryRedisPassword: () => '',
  discoveryRedisSocketTimeout: 1,
  discoveryRedisRetryTimes: 1,
  discoveryRedisStatusTtlMs: 60_000,
  discoveryRedisRefreshIntervalMs: 1000,
  discoveryEtcdEndpoints: 'etcd:2379',
  discoveryEtcdUsername: '',
  discoveryEtcdPassword: () => '',
  discoveryEtcdTlsCaFile: '',
  discoveryEtcdTlsCertFile: '',
  discoveryEtcdTlsKeyFile: '',
  discoveryEtcdTlsServerName: '',
  discoveryEtcdDialTimeout: 5,
  discoveryEtcdLeaseTtl: 60,
  discoveryEtcdRefreshIntervalSec: 3600,
};

function mistakes(change: Partial<StoreValues>): string[] {
  return storeMistakes({ ...defaults, ...change });
}

test('the defaults are no mistake, and flags of the store that was not chosen are not looked at', () => {
  assert.deepEqual(mistakes({}), []);
  assert.deepEqual(mistakes({ llmBackendDiscovery: 'etcd' }), []);
  assert.deepEqual(mistakes({ discoveryEtcdTlsCaFile: '/none' }), []);
  assert.deepEqual(mistakes({ llmBackendDiscovery: 'endpoints', discoveryRedisTlsCaFile: '/none' }), []);
});

test('Sentinels and cluster nodes exclude each other, and what belongs to them needs them', () => {
  assert.deepEqual(
    mistakes({
      discoveryRedisSentinels: 'a',
      discoveryRedisSentinelMaster: 'main',
      discoveryRedisClusterNodes: 'b',
      discoveryRedisDb: 1,
    }),
    [
      '--discovery-redis-sentinels and --discovery-redis-cluster-nodes: set only one of the two',
      '--discovery-redis-db: 1; a cluster has only database 0',
    ],
  );
  assert.deepEqual(mistakes({ discoveryRedisSentinels: 'a' }), [
    '--discovery-redis-sentinel-master: empty; --discovery-redis-sentinels needs the name of the master',
  ]);
  assert.deepEqual(
    mistakes({
      discoveryRedisSentinelMaster: 'm',
      discoveryRedisSentinelUsername: 'u',
      discoveryRedisSentinelPassword: () => 'hunter',
      discoveryRedisSentinelTls: true,
    }),
    ['master', 'username', 'password', 'tls'].map(
      (name) => `--discovery-redis-sentinel-${name}: needs --discovery-redis-sentinels`,
    ),
  );
});

test('TLS flags need TLS, both files of a certificate, and files that can be read and used', async () => {
  const certificates = await createCertificates();
  const { cert, key } = certificates.client;
  const good = {
    discoveryRedisTlsCaFile: certificates.ca,
    discoveryRedisTlsCertFile: cert,
    discoveryRedisTlsKeyFile: key,
  };
  assert.deepEqual(mistakes({ ...good, discoveryRedisTls: true }), []);
  assert.deepEqual(
    mistakes(good),
    ['ca-file', 'cert-file', 'key-file'].map((name) => `--discovery-redis-tls-${name}: needs --discovery-redis-tls`),
  );
  assert.deepEqual(mistakes({ discoveryRedisTls: true, discoveryRedisTlsCertFile: cert }), [
    '--discovery-redis-tls-cert-file and --discovery-redis-tls-key-file: give both or neither',
  ]);
  const folder = temporaryFolder();
  const [none = ''] = mistakes({ discoveryRedisTls: true, discoveryRedisTlsCaFile: join(folder, 'none') });
  assert.match(none, /^--discovery-redis-tls-ca-file: cannot be read: ENOENT/);
  assert.match(mistakes({ discoveryRedisTls: true, discoveryRedisTlsCaFile: folder }).join(), /is not a file/);
  const rubbish = join(folder, 'rubbish');
  writeFileSync(rubbish, 'rubbish');
  const wrong = mistakes({ ...good, discoveryRedisTls: true, discoveryRedisTlsKeyFile: rubbish });
  assert.equal(wrong.length, 1);
  assert.match(wrong[0] ?? '', /^--discovery-redis-tls-ca-file, .*-key-file: cannot be used: /);
});

test("etcd's TLS flags need https endpoints", async () => {
  const certificates = await createCertificates();
  const file = join(temporaryFolder(), 'ca');
  copyFileSync(certificates.ca, file);
  const etcd = { llmBackendDiscovery: 'etcd', discoveryEtcdTlsCaFile: file, discoveryEtcdTlsServerName: 'etcd' };
  assert.deepEqual(mistakes({ ...etcd, discoveryEtcdEndpoints: ' https://10.0.0.1:2379, https://etcd' }), []);
  assert.deepEqual(
    mistakes(etcd),
    ['ca-file', 'server-name'].map(
      (name) => `--discovery-etcd-tls-${name}: needs https:// before the endpoints of --discovery-etcd-endpoints`,
    ),
  );
});

test('a server name is a DNS name, and lists of addresses are checked one by one', () => {
  const { validate } = storeOptions['discovery-redis-tls-server-name'];
  assert.deepEqual(['', 'redis', 'a.example'].map(validate), [undefined, undefined, undefined]);
  for (const name of ['10.0.0.1', '::1', 'a b', 'https://a']) assert.equal(validate(name), 'allowed: a DNS name');
  assert.deepEqual(readAddresses('a, b:1 ,[::1]:2,a', 6379), {
    addresses: [
      { host: 'a', port: 6379 },
      { host: 'b', port: 1 },
      { host: '::1', port: 2 },
    ],
  });
  for (const list of [',', 'a,', 'a:0', 'a:65536', 'redis://a', '::1']) assert.ok('mistake' in readAddresses(list, 1));
  const many = Array.from({ length: 101 }, (_, at) => `a${at}`).join();
  assert.deepEqual(readAddresses(many, 1), { mistake: 'names 101 addresses; at most 100' });
});
