import { HeaderLines, splitUrl } from '@llm-gateway/http1';
import { endpointHeaders, joinUrl } from '@llm-gateway/routing';
import { attempt, outcomeOf } from './attempt.ts';
import type { Exchange } from './exchange.ts';
import type { Outcome } from './failover.ts';
import type { Gateway } from './request.ts';

/** One attempt at an endpoint of the route config: the client's own request at the joined URL. Null when nothing is left to do. */
export async function callEndpoint(
  step: { readonly endpoint: number; readonly fallback: boolean },
  exchange: Exchange,
  gateway: Gateway,
): Promise<Outcome | null> {
  const endpoint = gateway.table.endpoints[step.endpoint];
  if (endpoint === undefined) throw new Error(`no endpoint ${step.endpoint} in the route config`);
  const url = splitUrl(joinUrl(endpoint.baseUrl, exchange.target));
  exchange.endpoint = url.host;
  const end = await attempt(
    {
      origin: url.origin,
      path: url.path,
      method: exchange.request.method ?? 'POST',
      headers: HeaderLines.of(
        endpointHeaders(step.fallback ? exchange.fallbackHeaders() : exchange.forwardHeaders(), endpoint),
      ),
      body: exchange.body,
    },
    { exchange, gateway, ourKey: endpoint.apiKey !== '' },
  );
  return outcomeOf(end, []);
}
