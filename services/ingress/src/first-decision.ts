import type { Ask, Decision } from '@llm-gateway/protocol';
import { decide } from './decide/decide.ts';
import { routeOf } from './decide/decider.ts';
import type { Exchange } from './exchange/exchange.ts';
import { fallbacksOf } from './fallbacks.ts';
import type { Gateway } from './gateway.ts';
import { responseIdOf } from './http/surface.ts';

/** The first decision of a request if it is available at once; otherwise the ask for it. */
export function beginDecision(exchange: Exchange, gateway: Gateway): Decision | Ask {
  if (exchange.stored !== null) return toOwner(exchange.stored, exchange, gateway);
  gateway.rehearsal?.count(exchange.table, exchange.model);
  const { trace } = exchange;
  if (trace === null) return tryDecide(exchange, gateway);
  const startedAtMs = performance.now();
  const begun = tryDecide(exchange, gateway);
  if ('route' in begun) trace.decided(begun.route === 'internal' ? 'lease' : 'policy', startedAtMs);
  return begun;
}

/**
 * Without a place at the instances, where those have a limit, what is returned is an `Ask` that has
 * to wait for one.
 */
function tryDecide(exchange: Exchange, { admission, decider }: Gateway): Decision | Ask {
  if (admission === null) return decider.tryDecide(exchange, exchange.table);
  const route = routeOf(exchange, exchange.table);
  if (route.route !== 'internal') return route;
  if (admission.tryEnter(exchange)) return decider.tryInstance(exchange);
  return { model: exchange.instanceModel, stage: 'internal', excluded: [] };
}

/**
 * To the instance that keeps a response, when that is known. The model of a request for a response
 * alone is not.
 */
function toOwner(id: string, exchange: Exchange, gateway: Gateway): Decision | Ask {
  if (exchange.table.renamesLocally) routeOf(exchange, exchange.table);
  const instance = gateway.responses.ownerOf(id);
  if (instance) return { route: 'internal', instance };
  const stage = responseIdOf(exchange.request.place) === null ? 'route' : 'internal';
  return { model: exchange.instanceModel, stage, excluded: [] };
}

/**
 * The first decision, once the instances have a place for the request; null: it goes to its
 * fallback chain instead.
 */
export async function endDecision(
  begun: Decision | Ask,
  exchange: Exchange,
  gateway: Gateway,
): Promise<Decision | null> {
  if ('route' in begun) return begun;
  const { admission, decider } = gateway;
  if (admission === null || exchange.place !== null || exchange.stored !== null) {
    return await firstDecision(begun, exchange, gateway);
  }
  const span = exchange.trace?.waiting();
  try {
    const canSpill = fallbacksOf(exchange, null).length > 0;
    if (!(await admission.wait(exchange, { canSpill }))) return null;
    // Its key may have been taken away meanwhile.
    if (exchange.from !== null) gateway.clients?.checkAgain(exchange.from);
  } finally {
    span?.end();
  }
  exchange.entered('deciding');
  const again = decider.tryInstance(exchange);
  return 'route' in again ? again : await decide(again, exchange, gateway);
}

function firstDecision(ask: Ask, exchange: Exchange, gateway: Gateway): Promise<Decision> {
  return exchange.stored === null
    ? decide(ask, exchange, gateway)
    : decideStored(exchange.stored, ask, { exchange, gateway });
}

/** As `decide`, for a request about a response that perhaps an instance keeps. */
async function decideStored(
  id: string,
  ask: Ask,
  { exchange, gateway }: { exchange: Exchange; gateway: Gateway },
): Promise<Decision> {
  // If the instance has left, the response is gone, and any other instance answers that.
  if (gateway.responses.ownerOf(id) === undefined) {
    const credentials = gateway.models.credentialsFor(exchange);
    const instance = await gateway.responses.find(id, credentials, exchange.signal);
    if (instance !== null) return { route: 'internal', instance };
  }
  if (ask.stage === 'route' && exchange.table.renamesLocally) {
    const begun = gateway.decider.tryDecide(exchange, exchange.table);
    return 'route' in begun ? begun : await decide(begun, exchange, gateway);
  }
  return await decide(ask, exchange, gateway);
}
