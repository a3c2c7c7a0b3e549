import { busMistakes, busOptions } from '@llm-gateway/bus';
import { defineService, type OptionsOf } from '@llm-gateway/runtime';

export const limiterOptions = {
  'quota-recount-timeout-ms': {
    type: 'integer',
    default: 15,
    min: 1,
    max: 10_000,
    description:
      'Longest wait for an ingress that is asked what a client spent, when a limiter begins to own its limits; less than --quota-timeout-ms of the ingresses',
  },
} as const;

export const options = defineService({
  name: 'limiter',
  description: 'Keeps the limits of clients, exact over all ingresses',
  example: 'llm-gateway limiter --nats-servers nats://nats:4222 # keeps the limits of clients',
  main: ['nats-servers', 'config', 'log-level', 'admin-port'],
  groups: [limiterOptions, busOptions],
  check: (values) => busMistakes(values),
});

export type Options = OptionsOf<typeof options>;
