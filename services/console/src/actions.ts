import {
  GatewayError,
  type InstanceOrder,
  type MirrorOrder,
  maxOrderMs,
  type OrderKind,
  type OrderReply,
  orderKinds,
} from '@llm-gateway/protocol';
import type { Watch } from '@llm-gateway/watch';

const maxReason = 300;
const maxId = 512;
const defaultForMs = 2 * 3_600_000;

export interface ActionAnswer {
  readonly status: number;
  readonly body: { readonly result: string; readonly message: string; readonly twin?: string };
}

/**
 * Executes an order of the page, publishes it as an event, and says how the command line does
 * the same.
 */
export async function act(watch: Watch, asked: Readonly<Record<string, unknown>>, who: string): Promise<ActionAnswer> {
  const mirror = readMirrorOrder(asked, who);
  if (mirror !== null) return await actOnMirror(watch, mirror);
  const order = readOrder(asked, who);
  if (order === null) return answer(400, 'invalid', 'The order is not one that the console knows.');
  let reply: OrderReply;
  try {
    reply = await watch.order(order);
  } catch (error) {
    return unavailable(error);
  }
  const twin = commandOf(order);
  if (reply.result === 'done') {
    const why = order.reason === '' ? '' : `: ${order.reason}`;
    watch.events.add({
      at: Date.now(),
      kind: 'order',
      level: 'notice',
      subject: order.instance,
      text: `${who} ordered ${order.kind} for ${order.instance}${why} (${twin})`,
    });
    return answer(200, 'done', '', twin);
  }
  return answer(409, reply.result, refusals[reply.result], twin);
}

async function actOnMirror(watch: Watch, order: MirrorOrder): Promise<ActionAnswer> {
  try {
    await watch.orderMirror(order);
  } catch (error) {
    return unavailable(error);
  }
  const { kind, by, reason, forMs } = order;
  const words = ['llm-gateway', 'mirror', kind];
  if (kind === 'pause') words.push('--for', `${Math.round(forMs / 1000)}s`);
  if (reason !== '') words.push('--reason', quoted(reason));
  const twin = words.join(' ');
  const why = reason === '' ? '' : `: ${reason}`;
  const text = `${by} ordered ${kind} for the mirror${why} (${twin})`;
  watch.events.add({ at: Date.now(), kind: 'order', level: 'notice', subject: 'mirror', text });
  return answer(200, 'done', '', twin);
}

function unavailable(error: unknown): ActionAnswer {
  const away = error instanceof GatewayError && error.code === 'bus_no_responders';
  const why = away ? 'No discovery answers, and it alone takes orders.' : 'Discovery did not answer in time.';
  return answer(503, 'unavailable', why);
}

const refusals: Readonly<Record<Exclude<OrderReply['result'], 'done'>, string>> = {
  unknown: 'Discovery lists no such engine.',
  last: 'Nothing else serves its model: its requests would fail. Force it if that is meant.',
  full: 'There are too many orders already; some end by themselves.',
};

/** Null: it is no order for the mirror, or not a good one. */
function readMirrorOrder(asked: Readonly<Record<string, unknown>>, by: string): MirrorOrder | null {
  const { kind, forMs = defaultForMs, reason = '' } = asked;
  if (kind !== 'pause-mirror' && kind !== 'resume-mirror') return null;
  if (!isSpan(forMs) || typeof reason !== 'string') return null;
  return { kind: kind === 'pause-mirror' ? 'pause' : 'resume', forMs, by, reason: oneLine(reason) };
}

function isSpan(forMs: unknown): forMs is number {
  return typeof forMs === 'number' && Number.isInteger(forMs) && forMs >= 1000 && forMs <= maxOrderMs;
}

function readOrder(asked: Readonly<Record<string, unknown>>, by: string): InstanceOrder | null {
  const { kind, instance, forMs = defaultForMs, reason = '', force = false } = asked;
  if (!isKind(kind) || typeof instance !== 'string' || instance === '' || instance.length > maxId) return null;
  if (!isSpan(forMs)) return null;
  if (typeof reason !== 'string' || typeof force !== 'boolean') return null;
  return { instance, kind, forMs, by, reason: oneLine(reason), force };
}

/** It becomes a part of an event, and of a command line. */
function oneLine(reason: string): string {
  return reason
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim()
    .slice(0, maxReason);
}

function isKind(value: unknown): value is OrderKind {
  return orderKinds.some((kind) => kind === value);
}

function commandOf({ kind, instance, forMs, reason, force }: InstanceOrder): string {
  const lasts = kind === 'drain' || kind === 'eject';
  const words = ['llm-gateway', kind, quoted(instance)];
  if (lasts) words.push('--for', `${Math.round(forMs / 1000)}s`);
  if (reason !== '') words.push('--reason', quoted(reason));
  if (force) words.push('--force');
  return words.join(' ');
}

function quoted(word: string): string {
  return /^[\w.:@/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function answer(status: number, result: string, message: string, twin?: string): ActionAnswer {
  return { status, body: { result, message, ...(twin !== undefined && { twin }) } };
}
