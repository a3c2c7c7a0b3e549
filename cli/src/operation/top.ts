import { setTimeout as delay } from 'node:timers/promises';
import { defineCommand, exitCodes, outputOptions } from '@llm-gateway/runtime';
import { instancesText, numbersText, verdictText } from './shown.ts';
import { openView, viewGroups, viewMistakes } from './view.ts';

const everyMs = 1000;
const otherLines = 8;
const usualRows = 24;
const clearScreen = '\x1b[H\x1b[2J';

/** A table that is drawn again each second, until it is ended. */
export const command = defineCommand({
  name: 'top',
  description: 'Shows the state and the worst engines, again each second, until Ctrl-C; with --json a line each second',
  example: 'llm-gateway top --console http://127.0.0.1:8088 # the same each second',
  main: ['console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: [] },
  groups: [...viewGroups, outputOptions],
  check: viewMistakes,
  async run(values, { answer, signal }) {
    await using view = await openView(values, signal);
    while (!signal.aborted) {
      const state = await view.snapshot();
      const rows = Math.max(1, (process.stdout.rows ?? usualRows) - otherLines);
      const text = [
        verdictText(state),
        numbersText(state),
        '',
        instancesText(state.instances.slice(0, rows), state.at),
      ];
      if (process.stdout.isTTY && !values.json) process.stdout.write(clearScreen);
      answer(state, text.join('\n'));
      await delay(everyMs, undefined, { signal }).catch(() => undefined);
    }
    return exitCodes.done;
  },
});
