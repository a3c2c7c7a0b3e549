import { type BusSettings, busMistakes, busOptions } from '@llm-gateway/bus';
import { policyOptions } from '@llm-gateway/fleet';
import { checkNextRoutes, checkRoutes, routeRemarks } from '@llm-gateway/route-config';
import { pdOptions, rehearsalOptions, routeOptions } from '@llm-gateway/routing';
import { defineService, internalOptions, type OptionsOf } from '@llm-gateway/runtime';
import { tracingMistakes, tracingOptions, tracingRemarks } from '@llm-gateway/tracing';
import { commitOptions, upstreamOptions } from '@llm-gateway/upstream';
import { admissionMistakes, admissionOptions, admissionRemarks, queues } from './admission/options.ts';
import { clientKeyMistakes } from './clients/clients.ts';
import { clientKeyOptions, showsClients } from './clients/options.ts';
import { affinityMistakes, promptOptions } from './decide/options.ts';
import { allSplitPaths, readSplitPaths } from './disaggregated/split-paths.ts';
import { clientMistakes, clientOptions } from './http/options.ts';
import { mirrorConfigMistakes, mirrorConfigRemarksOf } from './mirror/config-file.ts';
import { mirrorOptions } from './mirror/options.ts';
import { usageOptions } from './usage/options.ts';

// For the commands that make and check such files.
export { maxKeyFileBytes, newKey, readKeyFile } from './clients/key-file.ts';
export {
  admissionMistakes,
  affinityMistakes,
  clientKeyMistakes,
  clientKeyOptions,
  clientMistakes,
  clientOptions,
  mirrorConfigMistakes,
  mirrorConfigRemarksOf,
  queues,
  showsClients,
};

export const ingressOptions = {
  'max-body-bytes': {
    type: 'integer',
    default: 67_108_864,
    min: 1,
    description: 'Maximum size of a request body, in bytes',
  },
  'max-held-body-bytes': {
    type: 'integer',
    default: 1_073_741_824,
    min: 1,
    description: 'Maximum bytes of request bodies held at once; beyond it requests get 503',
  },
  'max-concurrent-requests': {
    type: 'integer',
    default: 20_000,
    min: 1,
    description: 'Maximum requests served at once; beyond it requests get 503',
  },
  'decision-timeout-ms': {
    type: 'integer',
    default: 100,
    min: 1,
    description: 'Longest wait for a router; then the ingress decides itself',
  },
  'decision-leases': {
    type: 'boolean',
    default: true,
    description:
      'Use instances that a router chose in advance, for about 50 ms; otherwise ask a router for each request',
  },
  'retry-max-count': {
    type: 'integer',
    default: 0,
    min: 0,
    description: 'Maximum internal retries on retryable errors before fallback',
  },
  'connect-retry-count': {
    type: 'integer',
    default: 2,
    min: 0,
    max: 100,
    description: 'Further instances tried immediately when one cannot be reached, so that nothing was sent',
  },
  'retry-budget-percent': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 100,
    description:
      'Maximum internal retries and 429 queue calls of this ingress, including waiting ones, in percent of its recent requests; 0: no budget',
  },
  'fallback-retry-queue-enabled': {
    type: 'boolean',
    default: false,
    description: 'Enable the retry queue for 429 responses of fallback endpoints',
  },
  'pd-paths': {
    type: 'string',
    list: 'words',
    default: allSplitPaths,
    validate: (value: string) => {
      const read = readSplitPaths(value);
      return 'mistake' in read ? read.mistake : undefined;
    },
    description: 'Comma-separated paths whose requests a P/D protocol splits; others go to a decode instance only',
  },
  'gateway-id': {
    type: 'string',
    default: '',
    description:
      'Name shared by the ingresses of one installation, by which they detect request loops; empty: one per process',
  },
  'heartbeat-interval-ms': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 86_400_000,
    description:
      'Silence of an event stream after which the client receives a comment, even before the answer has begun; later errors are then sent in the stream with status 200; 0: none',
  },
  'expose-route-headers': {
    type: 'boolean',
    default: false,
    description: 'Add x-gateway-route, x-gateway-endpoint, x-gateway-attempts and x-gateway-choice to answers',
  },
  ...admissionOptions,
  ...promptOptions,
  ...mirrorOptions,
  ...rehearsalOptions,
  ...usageOptions,
} as const;

export const options = defineService({
  name: 'ingress',
  description: 'Holds client connections, requests decisions and forwards bytes',
  example: 'llm-gateway ingress --nats-servers nats://nats:4222 --port 8089 # where clients connect',
  main: [
    'host',
    'port',
    'nats-servers',
    'client-keys',
    'route-policy',
    'route-config',
    'retry-max-count',
    'scheduling-policy',
    'pd-disagg-protocol',
    'mirror-config',
    'max-body-bytes',
    'expose-route-headers',
    'tls-cert-file',
    'tls-key-file',
    'config',
    'log-level',
    'admin-port',
  ],
  usesProxies: true,
  groups: [
    clientOptions,
    clientKeyOptions,
    ingressOptions,
    internalOptions,
    routeOptions,
    pdOptions,
    policyOptions,
    upstreamOptions,
    commitOptions,
    tracingOptions,
    busOptions,
  ],
  check: [
    clientMistakes,
    clientKeyMistakes,
    admissionMistakes,
    affinityMistakes,
    tracingMistakes,
    busMistakes,
    ...checkRoutes,
    checkNextRoutes,
  ],
  checkFollowed: mirrorConfigMistakes,
  remarks: [routeRemarks, mirrorConfigRemarksOf, tracingRemarks, admissionRemarks],
});

export type Options = OptionsOf<typeof options>;

/** The options that the service reads itself; its caller creates the bus. */
export type Settings = Omit<Options, Exclude<keyof BusSettings, 'namespace'>>;
