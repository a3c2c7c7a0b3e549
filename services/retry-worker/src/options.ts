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
    description: 'Max queued 429-retry tasks of one process, beside those that are calling',
  },
  'fallback-retry-worker-size': {
    type: 'integer',
    default: 10,
    min: 1,
    description: 'Max 429-retry tasks of one process that call their endpoint at the same time',
  },
  'fallback-retry-max-count': {
    type: 'integer',
    default: 3,
    min: -1,
    description: 'Max 429 retries per request; 0: none, -1: until the client leaves or the deadline passes',
  },
  'fallback-retry-init-delay-ms': {
    type: 'integer',
    default: 500,
    min: 0,
    description: 'Initial backoff delay (ms) for 429 retries; doubled for each further one',
  },
  'fallback-retry-max-delay-ms': {
    type: 'integer',
    default: 5000,
    min: 0,
    description: 'Max backoff delay (ms) for 429 retries; an endpoint that asks for more gets it',
  },
  'fallback-retry-max-held-bytes': {
    type: 'integer',
    default: 1_073_741_824,
    min: 1,
    description: 'Request bodies held by one process for 429 retries; beyond it tasks are refused',
  },
} as const;

export const options = defineService({
  name: 'retry-worker',
  description: 'Waits out the 429s of fallback endpoints and calls them again, for any ingress',
  example:
    'llm-gateway retry-worker --nats-servers nats://nats:4222 --route-policy prefix --route-config @routes.json # waits out 429s',
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
