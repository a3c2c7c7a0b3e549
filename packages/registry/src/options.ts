import { isIP } from 'node:net';
import { isHost, readAddresses, readEtcdUrls } from './addresses.ts';
import { readNetworks } from './networks.ts';
import { readStaticInstances } from './static-instances.ts';

/** How to reach the store of discovery records: flags of everyone who reads or writes it. */
export const storeOptions = {
  'llm-backend-discovery': {
    type: 'string',
    default: 'redis',
    choices: ['redis', 'etcd', 'endpoints'],
    description: 'Source of instances: redis, etcd, or a static list of endpoints',
  },
  'discovery-redis-host': {
    type: 'string',
    default: 'redis',
    description: 'Redis host',
    // Empty would mean this machine, and a port or a scheme in it is a name that is looked up for ever.
    validate: (value: string) => (isHost(value) ? undefined : 'allowed: an IP address or a host name'),
  },
  'discovery-redis-port': { type: 'integer', default: 6379, min: 1, max: 65535, description: 'Redis port' },
  'discovery-redis-cluster-nodes': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Nodes of a Redis cluster, host:port,host:port, instead of host and port; one live node is enough, the others are discovered',
    validate: (value: string) => (value === '' ? undefined : mistakeOf(readAddresses(value, 6379))),
  },
  'discovery-redis-sentinels': {
    type: 'string',
    list: 'words',
    default: '',
    description: 'Sentinels that name the master, host:port,host:port, instead of host and port; default port 26379',
    validate: (value: string) => (value === '' ? undefined : mistakeOf(readAddresses(value, 26_379))),
  },
  'discovery-redis-sentinel-master': {
    type: 'string',
    default: '',
    description: 'Name of the master at the Sentinels',
  },
  'discovery-redis-sentinel-username': {
    type: 'string',
    default: '',
    description: 'ACL user of the Sentinels; sent only when set',
  },
  'discovery-redis-sentinel-password': {
    type: 'string',
    default: '',
    secret: true,
    reread: true,
    description: 'Password of the Sentinels; sent only when set',
  },
  'discovery-redis-sentinel-tls': {
    type: 'boolean',
    default: false,
    description: 'Use TLS to the Sentinels, with the files of --discovery-redis-tls',
  },
  'discovery-redis-db': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 2_147_483_647,
    description: 'Index of the Redis database; a cluster has only 0',
  },
  'discovery-redis-tls': { type: 'boolean', default: false, description: 'Use TLS to Redis' },
  'discovery-redis-tls-ca-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'CA certificates (PEM) to verify Redis, read again at each connection; empty: the public ones',
  },
  'discovery-redis-tls-cert-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'Client certificate (PEM) for Redis, read again at each connection',
  },
  'discovery-redis-tls-key-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'Key of the client certificate for Redis',
  },
  'discovery-redis-tls-server-name': {
    type: 'string',
    default: '',
    description: 'Name in the certificate of Redis if it is not the host',
    validate: serverNameMistake,
  },
  'discovery-redis-username': { type: 'string', default: '', description: 'Redis ACL user; sent only when set' },
  'discovery-redis-password': {
    type: 'string',
    default: '',
    secret: true,
    reread: true,
    description: 'Redis password; sent only when set',
  },
  'discovery-redis-socket-timeout': {
    type: 'number',
    default: 1.0,
    min: 0.001,
    unit: 'seconds',
    description: 'Longest wait for a Redis connection, read or write; fractions allowed',
  },
  'discovery-redis-retry-times': {
    type: 'integer',
    default: 1,
    min: 0,
    description: 'Retries of one Redis command after a failure',
  },
  'discovery-redis-status-ttl-ms': {
    type: 'integer',
    default: 60_000,
    min: 1,
    description: 'Age at which a record in Redis expires',
  },
  'discovery-redis-refresh-interval-ms': {
    type: 'integer',
    default: 1000,
    min: 1,
    description: 'Interval at which the instance list is read from Redis',
  },
  'discovery-etcd-endpoints': {
    type: 'string',
    list: 'words',
    default: 'etcd:2379',
    description: 'etcd endpoints, comma-separated; one live endpoint is enough',
    validate: (value: string) => mistakeOf(readEtcdUrls(value)),
  },
  'discovery-etcd-username': {
    type: 'string',
    default: '',
    description: 'etcd user; sent only when user and password are both set',
  },
  'discovery-etcd-password': { type: 'string', default: '', secret: true, reread: true, description: 'etcd password' },
  'discovery-etcd-tls-ca-file': {
    type: 'string',
    default: '',
    file: true,
    description:
      'CA certificates (PEM) to verify https endpoints of etcd, read again at each connection; empty: the public ones',
  },
  'discovery-etcd-tls-cert-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'Client certificate (PEM) for etcd at https endpoints, read again at each connection',
  },
  'discovery-etcd-tls-key-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'Key of the client certificate for etcd',
  },
  'discovery-etcd-tls-server-name': {
    type: 'string',
    default: '',
    description: 'Name in the certificate of etcd if it is not the host of the endpoint',
    validate: serverNameMistake,
  },
  'discovery-etcd-dial-timeout': {
    type: 'number',
    default: 5.0,
    min: 0.001,
    unit: 'seconds',
    description: 'Longest wait for an etcd connection or answer; fractions allowed',
  },
  'discovery-etcd-lease-ttl': {
    type: 'integer',
    default: 60,
    min: 1,
    unit: 'seconds',
    description: 'Lease of a record in etcd; a record with an older timestamp is stale',
  },
  'discovery-etcd-refresh-interval-sec': {
    type: 'number',
    default: 3600,
    min: 0.001,
    unit: 'seconds',
    description: 'Interval of full reads from etcd, in addition to the watch',
  },
} as const;

/** Flags of discovery: the store, or a list in its place. */
export const discoveryOptions = {
  ...storeOptions,
  'llm-backend-endpoints': {
    type: 'string',
    list: 'words',
    default: '',
    description: 'Static instances, host:port,host:port; default port 80; IPv6 as [::1]:8090',
    validate: (value: string) => (value === '' ? undefined : mistakeOf(readStaticInstances(value))),
  },
  'instance-networks': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Networks allowed for instances of a store, such as 10.0.0.0/8,fd00::/8; other addresses and host names are skipped; empty: any',
    validate: (value: string) => mistakeOf(readNetworks(value)),
  },
} as const;

/** What TLS asks for by name cannot be an address. */
function serverNameMistake(value: string): string | undefined {
  return value === '' || (isHost(value) && isIP(value) === 0) ? undefined : 'allowed: a DNS name';
}

function mistakeOf(result: { readonly mistake: string } | object): string | undefined {
  return 'mistake' in result ? result.mistake : undefined;
}
