import { defineCommand } from '@llm-gateway/runtime';
import { giveMirrorOrder, orderGroups, orderMistakes } from './order.ts';

/** The mirror config counts again. */
export const command = defineCommand({
  name: 'mirror resume',
  description: 'Ends a pause of mirroring; the mirror config counts again',
  example: 'llm-gateway mirror resume # the mirror config counts again',
  main: ['reason', 'console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: [] },
  groups: [...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveMirrorOrder(values, { kind: 'resume', ...values }, parts),
});
