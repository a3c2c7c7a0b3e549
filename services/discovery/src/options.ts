import { type BusSettings, busMistakes, busOptions } from '@llm-gateway/bus';
import { engineMetricsOptions } from '@llm-gateway/engine-metrics';
import { discoveryOptions, readStaticInstances, storeMistakes } from '@llm-gateway/registry';
import { pdOptions } from '@llm-gateway/routing';
import { defineService, type OptionsOf } from '@llm-gateway/runtime';

export const instanceModelOptions = {
  'instance-models-interval-ms': {
    type: 'integer',
    default: 60_000,
    min: 0,
    max: 86_400_000,
    description:
      'Interval at which each instance is asked for its models, including adapters and aliases; 0: never, and an instance that declares no model serves any',
  },
} as const;

export const options = defineService({
  name: 'discovery',
  description: 'Knows the live instances, from Redis, etcd or a static list, and announces them',
  example: 'llm-gateway discovery --nats-servers nats://nats:4222 --discovery-redis-host redis # engines from Redis',
  main: [
    'nats-servers',
    'llm-backend-discovery',
    'llm-backend-endpoints',
    'discovery-redis-host',
    'discovery-redis-port',
    'discovery-etcd-endpoints',
    'config',
    'log-level',
    'admin-port',
  ],
  groups: [discoveryOptions, instanceModelOptions, engineMetricsOptions, pdOptions, busOptions],
  check: [staticEndpointMistakes, storeMistakes, busMistakes],
});

export type Options = OptionsOf<typeof options>;

/** The options that the service reads itself; its caller creates the bus. */
export type Settings = Omit<Options, Exclude<keyof BusSettings, 'namespace'>>;

/**
 * What a static list must satisfy only when it is used, and only together with other flags. For
 * every service that runs discovery.
 */
export function staticEndpointMistakes(values: {
  readonly llmBackendDiscovery: string;
  readonly llmBackendEndpoints: string;
  readonly pdDisaggProtocol: string;
}): string[] {
  if (values.llmBackendDiscovery !== 'endpoints') return [];
  if (values.llmBackendEndpoints === '') {
    return ['--llm-backend-endpoints: empty; --llm-backend-discovery endpoints needs host:port,host:port'];
  }
  const read = readStaticInstances(values.llmBackendEndpoints, { kvPorts: values.pdDisaggProtocol !== '' });
  return 'mistake' in read ? [`--llm-backend-endpoints: ${read.mistake}`] : [];
}
