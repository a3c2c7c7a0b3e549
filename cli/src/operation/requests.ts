import { defineCommand, exitCodes, outputOptions } from '@llm-gateway/runtime';
import type { RequestRow } from '@llm-gateway/watch';
import { requestText } from './shown.ts';
import { openView, viewGroups, viewMistakes } from './view.ts';

const listenMs = 5000;

const followOptions = {
  follow: { type: 'boolean', default: false, description: 'Go on until Ctrl-C; otherwise listen for five seconds' },
  filter: {
    type: 'string',
    default: '',
    description: 'Words that must all be in the request: model, engine, cause, status, failed, retried',
  },
} as const;

/** Requests as they end, with all of their attempts. */
export const command = defineCommand({
  name: 'requests',
  description: 'Shows requests as they end, with all of their attempts; never a prompt or an answer',
  example: 'llm-gateway requests --follow --filter failed # with all of their attempts',
  main: ['follow', 'filter', 'console', 'console-password', 'nats-servers', 'nats-user', 'nats-password', 'json'],
  command: { operands: [] },
  groups: [followOptions, ...viewGroups, outputOptions],
  check: viewMistakes,
  async run(values, { answer, signal }) {
    await using view = await openView(values, signal);
    const until = values.follow ? signal : AbortSignal.any([signal, AbortSignal.timeout(listenMs)]);
    const show = (rows: readonly RequestRow[]) => {
      for (const row of rows) answer(row, requestText(row));
    };
    await view.follow(values.filter, show, until);
    return exitCodes.done;
  },
});
