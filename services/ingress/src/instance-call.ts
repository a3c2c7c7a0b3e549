import type { Decision, InstanceAddress } from '@llm-gateway/protocol';
import type { Outcome as InstanceOutcome } from '@llm-gateway/routing';
import { type AttemptEnd, attempt, outcomeOf } from './attempt.ts';
import type { Exchange } from './exchange.ts';
import type { Outcome } from './failover.ts';
import type { Gateway } from './request.ts';

/** One internal attempt, on the instances that `decision` chose. Null when nothing is left to do. */
export async function callInstances(decision: Decision, exchange: Exchange, gateway: Gateway): Promise<Outcome | null> {
  switch (decision.route) {
    case 'internal':
      exchange.route = 'internal';
      return await callInstance(decision.instance, exchange, gateway);
    case 'unknown':
      return { kind: 'unknown-route' };
    default:
      return { kind: 'no-instance' };
  }
}

/** Neutral forwarding: the client's request as it is. */
async function callInstance(instance: InstanceAddress, exchange: Exchange, gateway: Gateway): Promise<Outcome | null> {
  exchange.endpoint = instance.id;
  gateway.load.acquire(instance.id);
  let seen: InstanceOutcome | undefined;
  try {
    const end = await attempt(
      {
        origin: originOf(instance),
        path: exchange.target,
        method: exchange.request.method ?? 'POST',
        headers: exchange.forwardHeaders(),
        body: exchange.body,
      },
      { exchange, gateway, ourKey: false },
    );
    seen = judge(end);
    return outcomeOf(end, [instance.id]);
  } finally {
    gateway.load.release(instance.id, seen);
  }
}

export function originOf({ host, port }: { host: string; port: number }): string {
  return host.includes(':') && !host.startsWith('[') ? `http://[${host}]:${port}` : `http://${host}:${port}`;
}

/** What the end of an attempt tells about the instance; nothing when the client left. */
export function judge(end: AttemptEnd): InstanceOutcome | undefined {
  switch (end.kind) {
    case 'relayed':
      return 'succeeded';
    case 'refused':
      return end.answer.status === 429 || end.answer.status === 503
        ? 'busy'
        : end.answer.status >= 500
          ? 'failed'
          : 'succeeded';
    case 'failed':
    case 'broken':
      return 'failed';
    case 'client-left':
      return undefined;
  }
}
