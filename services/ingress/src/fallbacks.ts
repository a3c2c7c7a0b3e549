import { fallbacksAfter } from '@llm-gateway/routing';
import type { Exchange } from './exchange/exchange.ts';
import type { StepResult } from './failover/failover.ts';
import { responseIdOf } from './http/surface.ts';
import type { FallbackResult } from './observe/observer.ts';

/**
 * The fallbacks of a request, in their order. No endpoint has a response that an instance keeps.
 */
export function fallbacksOf({ request, table }: Exchange, primary: number | null): readonly number[] {
  if (request.isFallback || responseIdOf(request.place) !== null) return [];
  return fallbacksAfter(table, primary, request.target);
}

/** What became of the call of a fallback. @param outcome null when nothing was left to do */
export function fallbackResult(outcome: StepResult | null, exchange: Exchange): FallbackResult {
  if (outcome !== null) return outcome.kind === 'rejected' && outcome.answer.status === 429 ? 'limited' : 'failed';
  if (exchange.brokenBy !== undefined) return 'broken';
  return exchange.signal.aborted ? 'cancelled' : 'answered';
}
