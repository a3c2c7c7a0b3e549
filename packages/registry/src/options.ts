import { isIP } from 'node:net';
import { isHost, readAddresses, readEtcdEndpoints, readStaticEndpoints } from './endpoints.ts';
import { readNetworks } from './networks.ts';

/** How to reach the store of discovery records: flags of everyone who reads or writes it. */
export const storeOptions = {
  'llm-backend-discovery': {
    type: 'string',
    default: 'redis',
    choices: ['redis', 'etcd', 'endpoints'],
    description: 'Where LLM instances are discovered: redis, etcd, or a static list of endpoints',
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
      'Nodes of a Redis cluster, host:port,host:port, in place of host and port; any live one will do, and tells of the others',
    validate: (value: string) => (value === '' ? undefined : mistakeOf(readAddresses(value, 6379))),
  },
  'discovery-redis-sentinels': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Sentinels, host:port,host:port, who say where the master is, in place of host and port; port 26379 when none is given',
    validate: (value: string) => (value === '' ? undefined : mistakeOf(readAddresses(value, 26_379))),
  },
  'discovery-redis-sentinel-master': {
    type: 'string',
    default: '',
    description: 'Name that the Sentinels know the master by',
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
    description: 'Speak TLS with the Sentinels, with the files of --discovery-redis-tls',
  },
  'discovery-redis-db': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 2_147_483_647,
    description: 'Index of the Redis database; a cluster has only 0',
  },
  'discovery-redis-tls': { type: 'boolean', default: false, description: 'Speak TLS with Redis' },
  'discovery-redis-tls-ca-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'CA certificates (PEM) to check Redis with, read again at each connection; empty = public ones',
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
    description: "Name in Redis's certificate when it is not the host",
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
    description: 'How often one Redis command is tried again after a failure',
  },
  'discovery-redis-status-ttl-ms': {
    type: 'integer',
    default: 60_000,
    min: 1,
    description: 'A record in Redis that is older than this is expired',
  },
  'discovery-redis-refresh-interval-ms': {
    type: 'integer',
    default: 1000,
    min: 1,
    description: 'How often the instance list is read from Redis',
  },
  'discovery-etcd-endpoints': {
    type: 'string',
    list: 'words',
    default: 'etcd:2379',
    description: 'etcd endpoints, comma-separated; any live one will do',
    validate: (value: string) => mistakeOf(readEtcdEndpoints(value)),
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
      'CA certificates (PEM) to check etcd with at https endpoints, read again at each connection; empty = public ones',
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
    description: "Name in etcd's certificate when it is not the host of the endpoint",
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
    description: 'Lease of a record in etcd; a record whose timestamp is older is stale',
  },
  'discovery-etcd-refresh-interval-sec': {
    type: 'number',
    default: 3600,
    min: 0.001,
    unit: 'seconds',
    description: 'How often everything is read from etcd again, beside the watch',
  },
} as const;

/** Flags of discovery: the store, or a list in its place. */
export const discoveryOptions = {
  ...storeOptions,
  'llm-backend-endpoints': {
    type: 'string',
    list: 'words',
    default: '',
    description: 'Static endpoints, host:port,host:port; port 80 when none is given; IPv6 as [::1]:8090',
    validate: (value: string) => (value === '' ? undefined : mistakeOf(readStaticEndpoints(value))),
  },
  'instance-networks': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Networks that instances of a store may be in, as 10.0.0.0/8,fd00::/8; an instance elsewhere, or at a host name, does not count; empty: anywhere',
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
