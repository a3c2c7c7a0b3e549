import type { Decision } from '@llm-gateway/protocol';
import { callInstance } from './calls/instance-call.ts';
import { callPair, chooseDecode } from './disaggregated/pair-call.ts';
import type { Exchange } from './exchange/exchange.ts';
import type { StepResult } from './failover/failover.ts';
import type { Gateway } from './gateway.ts';

/**
 * One internal attempt, on the instances that `decision` chose. Null when nothing is left to do.
 */
export async function callInstances(
  decision: Decision,
  context: { exchange: Exchange; gateway: Gateway; excluded: readonly string[] },
): Promise<StepResult | null> {
  const { exchange, gateway } = context;
  exchange.decided(decision);
  switch (decision.route) {
    case 'internal':
      return await callInstance(decision.instance, context);
    case 'pair': {
      const api = gateway.pdPaths.get(exchange.request.path);
      if (gateway.pd !== null && api !== undefined) {
        return await callPair(decision, { protocol: gateway.pd, api }, context);
      }
      exchange.place?.prefilled();
      // The decode engine generates, and does its own prefill if none is named.
      const instance = decision.decode ?? (await chooseDecode(decision, context));
      return instance === null ? { kind: 'no-instance' } : await callInstance(instance, context);
    }
    case 'unknown':
      return { kind: 'unknown-route' };
    default:
      return { kind: 'no-instance' };
  }
}
