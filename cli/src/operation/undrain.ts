import { defineCommand } from '@llm-gateway/runtime';
import { giveOrder, orderGroups, orderMistakes } from './order.ts';

export const command = defineCommand({
  name: 'undrain',
  description: 'Ends the drain of an engine: it gets requests again at once',
  example: 'llm-gateway undrain engine-4 # it gets requests again',
  main: ['reason', 'console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: ['INSTANCE'] },
  groups: [...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveOrder(values, { kind: 'undrain', reason: values.reason }, parts),
});
