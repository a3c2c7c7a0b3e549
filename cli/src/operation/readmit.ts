import { defineCommand } from '@llm-gateway/runtime';
import { giveOrder, orderGroups, orderMistakes } from './order.ts';

export const command = defineCommand({
  name: 'readmit',
  description: 'Lets an engine have requests again at once, and forgets its failures',
  command: { operands: ['INSTANCE'] },
  groups: [...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveOrder(values, { kind: 'readmit', reason: values.reason }, parts),
});
