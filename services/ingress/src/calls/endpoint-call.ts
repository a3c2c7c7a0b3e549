import { HeaderLines, splitUrl } from '@llm-gateway/http1';
import { endpointHeaders, endpointUrl, hasOwnCredential, withoutSecrets } from '@llm-gateway/routing';
import type { Exchange } from '../exchange/exchange.ts';
import type { StepResult } from '../failover/failover.ts';
import { type AttemptGateway, attempt, outcomeOf } from './attempt.ts';
import { SecretMask } from './secret-mask.ts';
import { bodyWithModel } from './upstream-model.ts';

/**
 * One attempt at an endpoint of the route config: the client's own request at the joined URL. Null
 * when nothing is left to do.
 */
export async function callEndpoint(
  step: { readonly endpoint: number; readonly fallback: boolean },
  exchange: Exchange,
  gateway: AttemptGateway,
): Promise<StepResult | null> {
  const { request } = exchange;
  const endpoint = exchange.table.endpoints[step.endpoint];
  if (endpoint === undefined) throw new Error(`no endpoint ${step.endpoint} in the route config`);
  const url = splitUrl(endpointUrl(exchange.request.target, endpoint));
  const kind = step.fallback ? 'fallback' : 'external';
  exchange.routed(kind, url.host);
  const change = SecretMask.of(endpoint);
  const end = await attempt(
    {
      origin: url.origin,
      path: url.path,
      method: exchange.request.method,
      headers: HeaderLines.of(
        endpointHeaders(step.fallback ? request.fallbackHeaders() : request.forwardHeaders().list, endpoint),
      ),
      body: bodyWithModel(exchange, endpoint.upstreamModel),
      outside: true,
      ...(endpoint.timeoutMs > 0 && { headersTimeoutMs: endpoint.timeoutMs }),
    },
    { exchange, gateway, kind, target: url.host, ourKey: hasOwnCredential(endpoint), ...(change && { change }) },
  );
  const outcome = outcomeOf(end, []);
  if (outcome?.kind !== 'rejected') return outcome;
  return { ...outcome, answer: withoutSecrets(outcome.answer, endpoint) };
}
