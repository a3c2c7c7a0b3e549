import { defineCommand } from '@llm-gateway/runtime';
import { giveOrder, orderGroups, orderMistakes, spanOptions, waitOptions } from './order.ts';

export const command = defineCommand({
  name: 'drain',
  description:
    'Takes an engine out in peace: no new request, those in flight finish. Refuses the last one of a model without --force',
  example: 'llm-gateway drain engine-4 --for 2h --wait # until it is safe to delete',
  main: [
    'for',
    'wait',
    'force',
    'reason',
    'console',
    'console-password',
    'nats-servers',
    'nats-user',
    'nats-password',
    'json',
  ],
  command: { operands: ['INSTANCE'] },
  groups: [spanOptions, waitOptions, ...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveOrder(values, { ...values, kind: 'drain' }, parts),
});
