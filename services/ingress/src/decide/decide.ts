import type { Ask, Decision } from '@llm-gateway/protocol';
import type { Exchange } from '../exchange/exchange.ts';
import type { Decider } from './decider.ts';

/**
 * Asks for a decision, as a step of the request's trace. Throws `client_closed` when the client
 * leaves before there is one.
 */
export function decide(ask: Ask, exchange: Exchange, { decider }: { readonly decider: Decider }): Promise<Decision> {
  const { table, trace, signal } = exchange;
  if (trace === null) return decider.decide(ask, table, { signal });
  const step = trace.deciding(ask.stage);
  return decider.decide(ask, table, { signal, step }).finally(() => step.span.end());
}
