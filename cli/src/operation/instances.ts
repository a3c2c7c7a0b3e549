import { defineCommand, exitCodes, outputOptions } from '@llm-gateway/runtime';
import { instancesText } from './shown.ts';
import { openView, viewGroups, viewMistakes } from './view.ts';

export const command = defineCommand({
  name: 'instances',
  description: 'Lists the engines, the worst first: state, load, failures and times of the last minute',
  example: 'llm-gateway instances --console http://127.0.0.1:8088 # the engines, the worst first',
  main: ['console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: [] },
  groups: [...viewGroups, outputOptions],
  check: viewMistakes,
  async run(values, { answer, signal }) {
    await using view = await openView(values, signal);
    const { instances, at } = await view.snapshot();
    answer(instances, instancesText(instances, at));
    return exitCodes.done;
  },
});
