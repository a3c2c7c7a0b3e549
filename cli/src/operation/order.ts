import { setTimeout as delay } from 'node:timers/promises';
import type { OrderKind } from '@llm-gateway/protocol';
import { type CommandParts, type ExitCode, exitCodes, outputOptions } from '@llm-gateway/runtime';
import type { InstanceRow, Snapshot } from '@llm-gateway/watch';
import { readSpan } from './table.ts';
import { openView, type View, type ViewValues, viewGroups, viewMistakes } from './view.ts';

const reasonOptions = {
  reason: { type: 'string', default: '', description: 'Why, for the events' },
} as const;

export const forOption = {
  for: {
    type: 'string',
    default: '2h',
    description: 'How long the order lasts: 90s, 10m, 2h, 7d',
    validate: (value: string) => {
      const ms = readSpan(value);
      return ms !== null && ms >= 1000 && ms <= maxMs ? undefined : 'allowed: 1s to 7d, such as 10m or 2h';
    },
  },
} as const;

export const spanOptions = {
  ...forOption,
  force: { type: 'boolean', default: false, description: 'Also when nothing else serves the model' },
} as const;

export const waitOptions = {
  wait: {
    type: 'boolean',
    default: false,
    description: 'Wait until nothing is in flight there at any ingress; then it is safe to delete',
  },
} as const;

const maxMs = 7 * 86_400_000;
const usualMs = 7_200_000;
const pollMs = 300;
/** Everybody has told what is in flight once in this time. */
const roundMs = 1300;

/** Pauses the mirror, or resumes it. */
export async function giveMirrorOrder(
  values: ViewValues,
  { kind, for: span, reason }: { readonly kind: 'pause' | 'resume'; readonly for?: string; readonly reason: string },
  { answer, tell, signal }: CommandParts,
): Promise<ExitCode> {
  await using view = await openView(values, signal);
  const { result, message } = await view.orderMirror({ kind, forMs: readSpan(span ?? '') ?? usualMs, reason });
  if (result !== 'done') tell(`mirror: ${message}`);
  answer({ kind, result }, `${kind} of the mirror: ${result === 'done' ? 'done' : 'not done'}`);
  return result === 'done' ? exitCodes.done : exitCodes.failed;
}

export const orderGroups = [reasonOptions, ...viewGroups, outputOptions] as const;
export const orderMistakes = viewMistakes;

interface Order {
  readonly kind: OrderKind;
  readonly for?: string;
  readonly reason: string;
  readonly force?: boolean;
  readonly wait?: boolean;
}

/** Gives the order, and waits when asked to. */
export async function giveOrder(values: ViewValues, order: Order, parts: CommandParts): Promise<ExitCode> {
  const { operands, answer, tell, signal } = parts;
  const [named = ''] = operands;
  await using view = await openView(values, signal);
  const instance = idOf(named, await view.snapshot());
  const forMs = readSpan(order.for ?? '') ?? usualMs;
  const { kind, reason, force = false } = order;
  const { result, message } = await view.order({ instance, kind, forMs, reason, force });
  if (result !== 'done') {
    tell(`${instance}: ${message}`);
    answer({ instance, kind, result }, `${kind} of ${instance}: not done`);
    return exitCodes.failed;
  }
  if (order.wait !== true) {
    answer({ instance, kind, result }, `${kind} of ${instance}: done`);
    return exitCodes.done;
  }
  return await waitForEmpty(view, instance, parts);
}

async function waitForEmpty(view: View, instance: string, { answer, tell, signal }: CommandParts): Promise<ExitCode> {
  let emptySinceMs = Number.POSITIVE_INFINITY;
  let told = -1;
  const startedMs = performance.now();
  while (!signal.aborted) {
    const state = await view.snapshot();
    const nowMs = performance.now();
    const row = state.instances.find(({ id }) => id === instance);
    if (!hearsIngress(state)) {
      if (nowMs - startedMs > 2 * roundMs) throw new Error('no ingress reports; requests in flight are unknown');
    } else if (row === undefined || isEmpty(row)) emptySinceMs = Math.min(emptySinceMs, nowMs);
    else emptySinceMs = Number.POSITIVE_INFINITY;
    // What was asked before the order was known may still have been under way.
    if (nowMs - emptySinceMs >= roundMs && nowMs - startedMs >= 2 * roundMs) {
      answer({ instance, result: 'empty' }, `${instance}: nothing is in flight, it is safe to delete`);
      return exitCodes.done;
    }
    if (row !== undefined && row.inFlight !== told) {
      told = row.inFlight;
      tell(`${instance}: ${told} in flight`);
    }
    await delay(pollMs, undefined, { signal }).catch(() => undefined);
  }
  return exitCodes.failed;
}

function hearsIngress({ processes }: Snapshot): boolean {
  return processes.some(({ ingress, state }) => ingress !== undefined && state !== 'gone' && state !== 'stopped');
}

function isEmpty({ inFlight }: InstanceRow): boolean {
  return inFlight === 0;
}

/** A pod's name stands for its only rank. */
function idOf(named: string, { instances }: Snapshot): string {
  if (instances.some(({ id }) => id === named)) return named;
  const ranks = instances.filter(({ id, address }) => id.replace(/_dp\d+$/, '') === named || address === named);
  const [only] = ranks;
  if (ranks.length > 1) throw new Error(`${named} has ${ranks.length} ranks; name one, such as ${only?.id}`);
  return only?.id ?? named;
}
