import { defineCommand, exitCodes, outputOptions } from '@llm-gateway/runtime';
import { dependenciesText, mistakesText, numbersText, processesText, verdictText } from './shown.ts';
import { openView, viewGroups, viewMistakes } from './view.ts';

/** What is wrong in one sentence, what the gateway leans on, and every process. */
export const command = defineCommand({
  name: 'status',
  description:
    'Says in one sentence what is wrong, then what the gateway leans on and every process; ends with 1 when it is critical',
  example: 'llm-gateway status --nats-servers nats://nats:4222 # what is wrong, in one sentence',
  main: ['console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: [] },
  groups: [...viewGroups, outputOptions],
  check: viewMistakes,
  async run(values, { answer, signal }) {
    await using view = await openView(values, signal);
    const whole = await view.snapshot();
    const { instances, clients, ...state } = whole;
    const mistakes = mistakesText(state.processes, state.at);
    const text = [
      verdictText(whole),
      numbersText(whole),
      '',
      dependenciesText(whole),
      '',
      processesText(state.processes),
      ...(mistakes === '' ? [] : ['', mistakes]),
    ];
    answer({ ...state, instances: instances.length }, text.join('\n'));
    return state.verdict.level === 'critical' ? exitCodes.failed : exitCodes.done;
  },
});
