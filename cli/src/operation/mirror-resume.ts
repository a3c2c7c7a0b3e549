import { defineCommand } from '@llm-gateway/runtime';
import { giveMirrorOrder, orderGroups, orderMistakes } from './order.ts';

/** The mirror config counts again. */
export const command = defineCommand({
  name: 'mirror resume',
  description: 'Ends a pause of mirroring; the mirror config counts again',
  command: { operands: [] },
  groups: [...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveMirrorOrder(values, { kind: 'resume', ...values }, parts),
});
