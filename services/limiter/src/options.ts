import { busMistakes, busOptions } from '@llm-gateway/bus';
import { defineService, type OptionsOf } from '@llm-gateway/runtime';

export const limiterOptions = {
  'quota-recount-timeout-ms': {
    type: 'integer',
    default: 15,
    min: 1,
    max: 10_000,
    description:
      'Longest wait for an ingress to report what a client spent when a limiter takes the client over; less than --quota-timeout-ms of the ingresses',
  },
} as const;

export const options = defineService({
  name: 'limiter',
  description: 'Enforces client limits exactly across all ingresses',
  example: 'llm-gateway limiter --nats-servers nats://nats:4222 # enforces client limits',
  main: ['nats-servers', 'config', 'log-level', 'admin-port'],
  groups: [limiterOptions, busOptions],
  check: (values) => busMistakes(values),
});

export type Options = OptionsOf<typeof options>;
