import { busMistakes, busOptions } from '@llm-gateway/bus';
import { engineMetricsOptions } from '@llm-gateway/engine-metrics';
import { roles } from '@llm-gateway/protocol';
import { isHost, maxPodNameLength, storeMistakes, storeOptions } from '@llm-gateway/registry';
import { defineService, type OptionsOf, type OptionValues, type runtimeOptions } from '@llm-gateway/runtime';

export const registrarOptions = {
  'pod-name': { type: 'string', default: '', description: 'Name of the pod and of its record in the store' },
  'instance-type': {
    type: 'string',
    default: 'neutral',
    choices: roles,
    description: 'Role of the engine: whole requests, prefills or decodes',
  },
  'entrypoint-ip': { type: 'string', default: '', description: 'Address at which the gateway reaches the engine' },
  'entrypoint-port': {
    type: 'integer',
    default: 8000,
    min: 1,
    max: 65535,
    description: 'Port of the first data-parallel rank; rank i has this port + i',
  },
  'kv-transfer-ip': {
    type: 'string',
    default: '',
    description: 'Address at which decode engines fetch the KV cache, the same for all ranks',
  },
  'kv-transfer-port': { type: 'integer', default: 0, min: 0, max: 65535, description: 'Port of the KV transfer' },
  'dp-size-local': {
    type: 'integer',
    default: 1,
    min: 1,
    max: 1024,
    description: 'Data-parallel ranks in this pod',
  },
  model: { type: 'string', default: '', description: 'Only model that the engine serves; empty: any' },
  'heartbeat-interval-ms': {
    type: 'integer',
    default: 10_000,
    min: 1,
    description: 'Interval of health checks and writes of the record; less than the TTL of the record',
  },
  'health-path': { type: 'string', default: '/health', description: 'Path that answers 200 when a rank is healthy' },
  'health-timeout-ms': { type: 'integer', default: 3000, min: 1, description: 'Longest wait for a health check' },
  'health-retry-times': {
    type: 'integer',
    default: 1,
    min: 0,
    description: 'Retries of a failed health check before it counts',
  },
  'health-max-failures': {
    type: 'integer',
    default: 1,
    min: 1,
    description: 'Failed checks in a row after which a rank is unhealthy; one success makes it healthy',
  },
} as const;

/** It needs no bus for its record. */
const optionalBusOptions = {
  ...busOptions,
  'nats-servers': {
    ...busOptions['nats-servers'],
    default: '',
    description: `${busOptions['nats-servers'].description}; empty: engine metrics are not reported`,
    validate: (value: string) => (value === '' ? undefined : busOptions['nats-servers'].validate(value)),
  },
} as const;

const engineOptions = {
  ...engineMetricsOptions,
  'engine-metrics-interval-ms': { ...engineMetricsOptions['engine-metrics-interval-ms'], default: 200 },
} as const;

export const options = defineService({
  name: 'registrar',
  description: 'Checks the health of one engine pod and keeps its discovery record in Redis or etcd',
  example:
    'llm-gateway registrar --pod-name engine-1 --entrypoint-ip 10.0.0.7 --entrypoint-port 8000 --discovery-redis-host redis # one per engine pod',
  main: [
    'pod-name',
    'instance-type',
    'entrypoint-ip',
    'entrypoint-port',
    'model',
    'discovery-redis-host',
    'llm-backend-discovery',
    'nats-servers',
    'config',
    'log-level',
  ],
  groups: [registrarOptions, storeOptions, engineOptions, optionalBusOptions],
  // A variable for all services may have a password of NATS where this one has no NATS.
  check: [mistakes, (values) => (values.natsServers === '' ? [] : busMistakes(values))],
});

export type Options = OptionsOf<typeof options>;

function mistakes(
  values: OptionValues<readonly [typeof registrarOptions, typeof storeOptions, typeof runtimeOptions]>,
): string[] {
  const found = storeMistakes(values);
  if (values.llmBackendDiscovery === 'endpoints') {
    found.push('--llm-backend-discovery: endpoints; a registrar needs a store, redis or etcd');
  }
  if (values.podName === '') found.push('--pod-name: empty; the record needs a name');
  if (values.podName.length > maxPodNameLength) {
    found.push(`--pod-name: of ${values.podName.length} characters; at most ${maxPodNameLength} are allowed`);
  }
  if (!isHost(values.entrypointIp)) {
    found.push(`--entrypoint-ip: ${JSON.stringify(values.entrypointIp)}; allowed is an IP address or a host name`);
  }
  if (values.kvTransferIp !== '' && !isHost(values.kvTransferIp)) {
    found.push(`--kv-transfer-ip: ${JSON.stringify(values.kvTransferIp)}; allowed is an IP address or a host name`);
  }
  if (values.entrypointPort + values.dpSizeLocal - 1 > 65_535) {
    found.push(
      `--entrypoint-port: ${values.entrypointPort}; the port of the last of ${values.dpSizeLocal} ranks is above 65535`,
    );
  }
  // What may stand in the first line of a request: with anything else none is made.
  if (!/^\/[\x21-\x7e]*$/.test(values.healthPath)) {
    found.push(
      `--health-path: ${JSON.stringify(values.healthPath)}; a path begins with / and has no blanks, only ASCII`,
    );
  }
  const [ttlFlag, ttlMs] =
    values.llmBackendDiscovery === 'etcd'
      ? ['--discovery-etcd-lease-ttl', values.discoveryEtcdLeaseTtl * 1000]
      : ['--discovery-redis-status-ttl-ms', values.discoveryRedisStatusTtlMs];
  // Between two heartbeats even a healthy engine would leave the list. Checks that take long come
  // on top, but most take no time at all.
  if (values.heartbeatIntervalMs >= ttlMs) {
    found.push(
      `--heartbeat-interval-ms: ${values.heartbeatIntervalMs}; a record lives for ${ttlMs} ms (${ttlFlag}) and must be written sooner than that`,
    );
  }
  return found;
}
