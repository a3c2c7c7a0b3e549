import { defineCommand } from '@llm-gateway/runtime';
import { forOption, giveMirrorOrder, orderGroups, orderMistakes } from './order.ts';

/** Nothing is copied until the time is over or the mirror is resumed. */
export const command = defineCommand({
  name: 'mirror pause',
  description: 'Stops mirroring at every ingress for a while, whatever the mirror config says; copies under way end',
  example: "llm-gateway mirror pause --for 1h --reason 'the target is slow' # no copies for an hour",
  main: ['for', 'reason', 'console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: [] },
  groups: [forOption, ...orderGroups],
  check: orderMistakes,
  run: (values, parts) => giveMirrorOrder(values, { kind: 'pause', ...values }, parts),
});
