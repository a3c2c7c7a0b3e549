import { consoleMistakes, consoleOptions } from '@llm-gateway/console/options';
import { instanceModelOptions, staticEndpointMistakes } from '@llm-gateway/discovery/options';
import { engineMetricsOptions } from '@llm-gateway/engine-metrics';
import { policyOptions, schedulingOptions } from '@llm-gateway/fleet';
import {
  admissionMistakes,
  affinityMistakes,
  clientKeyMistakes,
  clientKeyOptions,
  clientMistakes,
  clientOptions,
  ingressOptions,
  mirrorConfigMistakes,
  mirrorConfigRemarksOf,
  queues,
} from '@llm-gateway/ingress/options';
import { limiterOptions } from '@llm-gateway/limiter/options';
import { mirrorSenderOptions } from '@llm-gateway/mirror-sender/options';
import { discoveryOptions, storeMistakes } from '@llm-gateway/registry';
import { retryWorkerOptions } from '@llm-gateway/retry-worker/options';
import { checkNextRoutes, checkRoutes, routeRemarks } from '@llm-gateway/route-config';
import { pdOptions, routeOptions } from '@llm-gateway/routing';
import { defineService, internalOptions, type OptionsOf } from '@llm-gateway/runtime';
import { tracingMistakes, tracingOptions, tracingRemarks } from '@llm-gateway/tracing';
import { commitOptions, upstreamOptions } from '@llm-gateway/upstream';

/** Alone there is no store to expect: a list of endpoints, and without one simulated engines. */
const aloneDiscoveryOptions = {
  ...discoveryOptions,
  'llm-backend-discovery': { ...discoveryOptions['llm-backend-discovery'], default: 'endpoints' },
  'llm-backend-endpoints': {
    ...discoveryOptions['llm-backend-endpoints'],
    description: `${discoveryOptions['llm-backend-endpoints'].description}; empty: two simulated engines are started`,
  },
} as const;

/** Here the console sends its test requests to the ingress of the same process. */
const { 'console-ingress': _, ...ownConsoleOptions } = consoleOptions;
const aloneConsoleOptions = {
  console: { type: 'boolean', default: true, description: 'Serve the console page' },
  ...ownConsoleOptions,
} as const;

export const options = defineService({
  name: 'standalone',
  description: 'Whole gateway in one process without NATS, for development and small installations',
  example: 'npm start -- --llm-backend-endpoints 10.0.0.7:8000,10.0.0.8:8000 # in front of two engines',
  main: [
    'llm-backend-endpoints',
    'host',
    'port',
    'client-keys',
    'route-policy',
    'route-config',
    'scheduling-policy',
    'pd-disagg-protocol',
    'mirror-config',
    'console',
    'console-host',
    'console-port',
    'console-actions',
    'config',
    'log-level',
    'log-format',
    'admin-port',
  ],
  usesProxies: true,
  groups: [
    clientOptions,
    clientKeyOptions,
    ingressOptions,
    aloneDiscoveryOptions,
    instanceModelOptions,
    engineMetricsOptions,
    routeOptions,
    pdOptions,
    policyOptions,
    schedulingOptions,
    retryWorkerOptions,
    mirrorSenderOptions,
    limiterOptions,
    aloneConsoleOptions,
    upstreamOptions,
    commitOptions,
    tracingOptions,
    internalOptions,
  ],
  check: [
    clientMistakes,
    clientKeyMistakes,
    admissionMistakes,
    (values) => (isEverFull(values) ? [] : [neverFull]),
    affinityMistakes,
    tracingMistakes,
    ...checkRoutes,
    checkNextRoutes,
    (values) => (usesSimulators(values) ? [] : staticEndpointMistakes(values)),
    storeMistakes,
    (values) => (values.console ? consoleMistakes({ ...values, consoleIngress: '' }) : []),
  ],
  checkFollowed: mirrorConfigMistakes,
  remarks: [routeRemarks, mirrorConfigRemarksOf, tracingRemarks],
});

/** Whether anything says that an instance is full, where requests are to wait then. */
function isEverFull(
  values: Parameters<typeof admissionMistakes>[0] & { readonly engineMetricsIntervalMs: number },
): boolean {
  return !queues(values) || values.instanceMaxRequests > 0 || values.engineMetricsIntervalMs > 0;
}

const neverFull =
  '--queue-max-requests needs --instance-max-requests or --engine-metrics-interval-ms: without them no instance is ever full';

export type Options = OptionsOf<typeof options>;

/** Whether nothing says where engines are. */
export function usesSimulators(values: {
  readonly llmBackendDiscovery: string;
  readonly llmBackendEndpoints: string;
}): boolean {
  return values.llmBackendDiscovery === 'endpoints' && values.llmBackendEndpoints === '';
}
