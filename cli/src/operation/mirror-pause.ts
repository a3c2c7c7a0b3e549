import { defineCommand } from '@llm-gateway/runtime';
import { forOption, giveMirrorOrder, orderGroups, orderMistakes } from './order.ts';

/** Nothing is copied until the time is over or the mirror is resumed. */
export const command = defineCommand({
  name: 'mirror pause',
  description: 'Stops mirroring at every ingress for a while, whatever the mirror config says; copies under way end',
  command: { operands: [] },
  groups: [forOption, ...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveMirrorOrder(values, { kind: 'pause', ...values }, parts),
});
