import { busMistakes, busOptions } from '@llm-gateway/bus';
import { checkRoutes } from '@llm-gateway/route-config';
import { routeOptions } from '@llm-gateway/routing';
import { defineService, internalOptions, type OptionValues, type runtimeOptions } from '@llm-gateway/runtime';
import { tracingMistakes, tracingOptions, tracingRemarks } from '@llm-gateway/tracing';
import { commitOptions, upstreamOptions } from '@llm-gateway/upstream';

export const retryWorkerOptions = {
  'fallback-retry-queue-size': {
    type: 'integer',
    default: 100,
    min: 0,
    description: 'Maximum queued 429 jobs of one process, in addition to those that are calling',
  },
  'fallback-retry-worker-size': {
    type: 'integer',
    default: 10,
    min: 1,
    description: 'Maximum 429 jobs of one process that call their endpoint at the same time',
  },
  'fallback-retry-max-count': {
    type: 'integer',
    default: 3,
    min: -1,
    description: 'Maximum 429 retries per request; 0: none, -1: until the client leaves or the deadline passes',
  },
  'fallback-retry-init-delay-ms': {
    type: 'integer',
    default: 500,
    min: 0,
    description: 'First backoff delay of 429 retries; doubled for each further retry',
  },
  'fallback-retry-max-delay-ms': {
    type: 'integer',
    default: 5000,
    min: 0,
    description: 'Longest backoff delay of 429 retries, unless the endpoint asks for a longer one',
  },
  'fallback-retry-max-held-bytes': {
    type: 'integer',
    default: 1_073_741_824,
    min: 1,
    description: 'Maximum bytes of request bodies that one process holds for 429 retries; further jobs are refused',
  },
} as const;

export const options = defineService({
  name: 'retry-worker',
  description: 'Retries the 429s of fallback endpoints after a backoff, for any ingress',
  example:
    'llm-gateway retry-worker --nats-servers nats://nats:4222 --route-policy prefix --route-config @routes.json # retries 429s',
  main: [
    'nats-servers',
    'route-policy',
    'route-config',
    'fallback-retry-max-count',
    'fallback-retry-queue-size',
    'fallback-retry-worker-size',
    'config',
    'log-level',
    'admin-port',
  ],
  usesProxies: true,
  groups: [
    retryWorkerOptions,
    internalOptions,
    routeOptions,
    upstreamOptions,
    commitOptions,
    tracingOptions,
    busOptions,
  ],
  check: [busMistakes, tracingMistakes, ...checkRoutes],
  remarks: tracingRemarks,
});

/** What a worker is started with; the rest of its flags is for its process. */
export type Options = OptionValues<
  readonly [
    typeof retryWorkerOptions,
    typeof internalOptions,
    typeof routeOptions,
    typeof upstreamOptions,
    typeof commitOptions,
  ]
> &
  Pick<OptionValues<readonly [typeof runtimeOptions]>, 'advertiseHost' | 'configRefreshIntervalMs'>;
