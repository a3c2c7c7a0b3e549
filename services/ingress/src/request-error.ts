import { type ErrorCode, GatewayError } from '@llm-gateway/protocol';
import type { Exchange } from './exchange/exchange.ts';
import type { Gateway } from './gateway.ts';
import { errorHeaders } from './http/error-answer.ts';

/** Turns whatever stopped a request into its answer. Nothing else does. Never throws. */
export function refuse(exchange: Exchange, error: unknown, gateway: Gateway): void {
  const known = error instanceof GatewayError ? error : undefined;
  if (known?.code === 'client_closed' || exchange.signal.aborted) return;
  if (known === undefined) gateway.observer.defect(error, exchange.id);
  const code = known?.code ?? 'internal';
  exchange.refusedWith(code);
  if (exchange.client.committed) {
    exchange.broke(code);
    exchange.client.breakOff(code, 'the gateway failed');
    return;
  }
  try {
    const param = typeof known?.details.param === 'string' ? known.details.param : null;
    const headers = [...exchange.ownHeaders(gateway.exposeRouteHeaders).list, ...errorHeaders(code, known)];
    exchange.client.refuse(code, known?.message ?? 'the gateway failed', { param, headers });
  } catch (defect) {
    gateway.observer.defect(defect, exchange.id);
    exchange.client.destroy();
  }
}

/** What a client is told when nothing is left to try. */
export function clientMessage(code: ErrorCode, exchange: Exchange): string {
  switch (code) {
    case 'model_not_found':
      return `The model \`${exchange.model ?? ''}\` does not exist`;
    case 'no_instance':
      return 'no live instance can serve this request';
    case 'upstream_timeout':
      return 'the upstream did not answer in time';
    case 'queue_full':
      return 'all instances are busy';
    case 'overloaded':
      return 'the gateway cannot open more connections at the moment';
    default:
      return 'the upstream failed';
  }
}
