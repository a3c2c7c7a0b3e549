import { defineCommand } from '@llm-gateway/runtime';
import { giveOrder, orderGroups, orderMistakes, spanOptions } from './order.ts';

export const command = defineCommand({
  name: 'eject',
  description:
    'Takes an engine out: no new request until the time is over or it is readmitted. Refuses the last one of a model without --force',
  example: "llm-gateway eject engine-4 --for 10m --reason 'bad answers' # no new request for ten minutes",
  main: ['for', 'force', 'reason', 'console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: ['INSTANCE'] },
  groups: [spanOptions, ...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveOrder(values, { ...values, kind: 'eject' }, parts),
});
