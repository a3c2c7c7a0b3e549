import { readAddresses, readEtcdUrls } from './addresses.ts';
import type { EtcdSettings } from './etcd.ts';
import { EtcdPlace } from './etcd-place.ts';
import { EtcdReader } from './etcd-reader.ts';
import { Keeper, type KeeperOptions } from './keeper.ts';
import type { RedisAddress, RedisSettings } from './redis.ts';
import { RedisPlace } from './redis-place.ts';
import { RedisReader } from './redis-reader.ts';
import type { ReaderSink, RecordKeeper, StoreReader } from './store.ts';
import { type TlsSettings, tlsMistakes } from './tls.ts';

/** The values of `storeOptions`. */
export interface StoreValues {
  readonly namespace: string;
  readonly llmBackendDiscovery: string;
  readonly discoveryRedisHost: string;
  readonly discoveryRedisPort: number;
  readonly discoveryRedisClusterNodes: string;
  readonly discoveryRedisSentinels: string;
  readonly discoveryRedisSentinelMaster: string;
  readonly discoveryRedisSentinelUsername: string;
  readonly discoveryRedisSentinelPassword: () => string;
  readonly discoveryRedisSentinelTls: boolean;
  readonly discoveryRedisDb: number;
  readonly discoveryRedisTls: boolean;
  readonly discoveryRedisTlsCaFile: string;
  readonly discoveryRedisTlsCertFile: string;
  readonly discoveryRedisTlsKeyFile: string;
  readonly discoveryRedisTlsServerName: string;
  readonly discoveryRedisUsername: string;
  readonly discoveryRedisPassword: () => string;
  readonly discoveryRedisSocketTimeout: number;
  readonly discoveryRedisRetryTimes: number;
  readonly discoveryRedisStatusTtlMs: number;
  readonly discoveryRedisRefreshIntervalMs: number;
  readonly discoveryEtcdEndpoints: string;
  readonly discoveryEtcdUsername: string;
  readonly discoveryEtcdPassword: () => string;
  readonly discoveryEtcdTlsCaFile: string;
  readonly discoveryEtcdTlsCertFile: string;
  readonly discoveryEtcdTlsKeyFile: string;
  readonly discoveryEtcdTlsServerName: string;
  readonly discoveryEtcdDialTimeout: number;
  readonly discoveryEtcdLeaseTtl: number;
  readonly discoveryEtcdRefreshIntervalSec: number;
}

/**
 * Reads the chosen store from now on. Returns at once; the store need not be there. Whoever calls
 * this disposes of it.
 */
export function openStoreReader(values: StoreValues, sink: ReaderSink): StoreReader {
  if (values.llmBackendDiscovery === 'etcd') {
    const refreshIntervalMs = values.discoveryEtcdRefreshIntervalSec * 1000;
    return new EtcdReader(
      { ...etcdSettings(values), ttlMs: values.discoveryEtcdLeaseTtl * 1000, refreshIntervalMs },
      sink,
    );
  }
  const { discoveryRedisStatusTtlMs: ttlMs, discoveryRedisRefreshIntervalMs: intervalMs } = values;
  return new RedisReader({ ...redisSettings(values), ttlMs, intervalMs }, sink);
}

/**
 * Keeps one pod's record in the chosen store. Returns at once; the store need not be there. Whoever
 * calls this disposes of it.
 */
export function openRecordKeeper(
  podName: string,
  values: StoreValues,
  options: Pick<KeeperOptions, 'onFailure'>,
): RecordKeeper {
  if (values.llmBackendDiscovery === 'etcd') {
    const leaseTtlSeconds = values.discoveryEtcdLeaseTtl;
    const place = new EtcdPlace(podName, { ...etcdSettings(values), leaseTtlSeconds });
    return new Keeper(place, { ...options, ttlMs: leaseTtlSeconds * 1000 });
  }
  const { discoveryRedisStatusTtlMs: ttlMs } = values;
  return new Keeper(new RedisPlace(podName, { ...redisSettings(values), ttlMs }), { ...options, ttlMs });
}

function redisSettings(values: StoreValues): RedisSettings {
  return {
    namespace: values.namespace,
    addresses: redisAddresses(values),
    sentinel:
      values.discoveryRedisSentinels === ''
        ? null
        : {
            master: values.discoveryRedisSentinelMaster,
            username: values.discoveryRedisSentinelUsername,
            password: values.discoveryRedisSentinelPassword,
            tls: values.discoveryRedisSentinelTls ? redisTls(values) : null,
          },
    db: values.discoveryRedisDb,
    tls: values.discoveryRedisTls ? redisTls(values) : null,
    username: values.discoveryRedisUsername,
    password: values.discoveryRedisPassword,
    socketTimeoutMs: values.discoveryRedisSocketTimeout * 1000,
    retryTimes: values.discoveryRedisRetryTimes,
  };
}

function redisAddresses(values: StoreValues): readonly RedisAddress[] {
  const { discoveryRedisSentinels: sentinels, discoveryRedisClusterNodes: nodes } = values;
  if (sentinels === '' && nodes === '') return [{ host: values.discoveryRedisHost, port: values.discoveryRedisPort }];
  const read = sentinels === '' ? readAddresses(nodes, 6379) : readAddresses(sentinels, 26_379);
  // The flag was validated with the same function.
  if ('mistake' in read) throw new Error(read.mistake);
  return read.addresses;
}

function redisTls(values: StoreValues): TlsSettings {
  return {
    caFile: values.discoveryRedisTlsCaFile,
    certFile: values.discoveryRedisTlsCertFile,
    keyFile: values.discoveryRedisTlsKeyFile,
    serverName: values.discoveryRedisTlsServerName,
  };
}

function etcdSettings(values: StoreValues): EtcdSettings {
  const etcd = readEtcdUrls(values.discoveryEtcdEndpoints);
  // The flag was validated with the same function.
  if ('mistake' in etcd) throw new Error(etcd.mistake);
  return {
    namespace: values.namespace,
    urls: etcd.urls,
    username: values.discoveryEtcdUsername,
    password: values.discoveryEtcdPassword,
    tls: etcdTls(values),
    dialTimeoutMs: values.discoveryEtcdDialTimeout * 1000,
  };
}

function etcdTls(values: StoreValues): TlsSettings {
  return {
    caFile: values.discoveryEtcdTlsCaFile,
    certFile: values.discoveryEtcdTlsCertFile,
    keyFile: values.discoveryEtcdTlsKeyFile,
    serverName: values.discoveryEtcdTlsServerName,
  };
}

/**
 * Mistakes across the flags of the chosen store, and files of theirs that cannot be read: a line
 * each.
 */
export function storeMistakes(values: StoreValues): string[] {
  if (values.llmBackendDiscovery === 'etcd') {
    const secure = /^\s*https:/.test(values.discoveryEtcdEndpoints);
    const missing = secure ? null : 'needs https:// before the endpoints of --discovery-etcd-endpoints';
    return tlsMistakes('--discovery-etcd-tls', etcdTls(values), missing);
  }
  return values.llmBackendDiscovery === 'redis' ? redisMistakes(values) : [];
}

function redisMistakes(values: StoreValues): string[] {
  const mistakes: string[] = [];
  const { discoveryRedisSentinels: sentinels, discoveryRedisClusterNodes: nodes } = values;
  if (sentinels !== '' && nodes !== '') {
    mistakes.push('--discovery-redis-sentinels and --discovery-redis-cluster-nodes: set only one of the two');
  }
  if (sentinels !== '' && values.discoveryRedisSentinelMaster === '') {
    mistakes.push('--discovery-redis-sentinel-master: empty; --discovery-redis-sentinels needs the name of the master');
  }
  const ofSentinels = {
    master: values.discoveryRedisSentinelMaster,
    username: values.discoveryRedisSentinelUsername,
    password: values.discoveryRedisSentinelPassword(),
    tls: values.discoveryRedisSentinelTls,
  };
  for (const [name, value] of sentinels === '' ? Object.entries(ofSentinels) : []) {
    if (value) mistakes.push(`--discovery-redis-sentinel-${name}: needs --discovery-redis-sentinels`);
  }
  if (nodes !== '' && values.discoveryRedisDb !== 0) {
    mistakes.push(`--discovery-redis-db: ${values.discoveryRedisDb}; a cluster has only database 0`);
  }
  const secure = values.discoveryRedisTls || values.discoveryRedisSentinelTls;
  const missing = secure ? null : 'needs --discovery-redis-tls';
  return [...mistakes, ...tlsMistakes('--discovery-redis-tls', redisTls(values), missing)];
}
