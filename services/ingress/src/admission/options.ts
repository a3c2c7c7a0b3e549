import type { OptionValues } from '@llm-gateway/runtime';

/** How requests wait for instances that are full. */
export const admissionOptions = {
  'instance-max-requests': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 1_000_000,
    description:
      'Maximum concurrent requests of one instance over all ingresses; with --queue-max-requests further ones wait; 0: as many as its engine computes at once, no limit while it reports no load',
  },
  'queue-max-requests': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 1_000_000,
    description:
      'Maximum requests that wait at this ingress for the instances of one model; further ones get 429; 0: no queue, instances receive all requests',
  },
  'queue-max-wait-ms': {
    type: 'integer',
    default: 30_000,
    min: 0,
    max: 86_400_000,
    description: 'Longest wait for an instance; then a request gets 429; 0: no queue, instances receive all requests',
  },
  'spill-after-ms': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 86_400_000,
    description:
      'Wait after which a request goes to the fallback chain of its model, also when the queue is full; 0: never',
  },
} as const;

export type AdmissionSettings = OptionValues<readonly [typeof admissionOptions]>;

/** Whether requests wait here when all instances are full. */
export function queues({ queueMaxRequests, queueMaxWaitMs }: AdmissionSettings): boolean {
  return queueMaxRequests > 0 && queueMaxWaitMs > 0;
}

/** What may be meant otherwise, a line each. */
export function admissionRemarks(settings: AdmissionSettings): string[] {
  if (!queues(settings) || settings.instanceMaxRequests > 0) return [];
  return [
    '--queue-max-requests without --instance-max-requests: requests only wait for engines whose load a registrar reports, or discovery with --engine-metrics-interval-ms',
  ];
}

/** Mistakes of the flags, a line each. */
export function admissionMistakes(settings: AdmissionSettings): string[] {
  const { instanceMaxRequests, queueMaxWaitMs, spillAfterMs } = settings;
  const mistakes: string[] = [];
  if (queues(settings)) {
    if (spillAfterMs >= queueMaxWaitMs) mistakes.push('--spill-after-ms must be less than --queue-max-wait-ms');
  } else {
    if (instanceMaxRequests > 0) mistakes.push('--instance-max-requests needs --queue-max-requests');
    if (spillAfterMs > 0) mistakes.push('--spill-after-ms needs --queue-max-requests');
  }
  return mistakes;
}
