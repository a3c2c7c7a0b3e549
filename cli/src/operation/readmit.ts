import { defineCommand } from '@llm-gateway/runtime';
import { giveOrder, orderGroups, orderMistakes } from './order.ts';

export const command = defineCommand({
  name: 'readmit',
  description: 'Lets an engine have requests again at once, and forgets its failures',
  example: 'llm-gateway readmit engine-4 # at once, and its failures are forgotten',
  main: ['reason', 'console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: ['INSTANCE'] },
  groups: [...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveOrder(values, { kind: 'readmit', reason: values.reason }, parts),
});
