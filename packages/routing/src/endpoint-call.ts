import { toThirdParty } from '@llm-gateway/http1';
import type { Endpoint } from './route-table.ts';

/**
 * The headers (name, value, name, value, …) of a call. The endpoint's key replaces every credential of the client; the
 * client's own are shown to a third party only when the route has no key and says so. What proxies wrote never is.
 */
export function endpointHeaders(headers: readonly string[], endpoint: Endpoint): string[] {
  const kept = headersForEndpoint(headers, endpoint);
  if (endpoint.apiKey !== '') kept.push('authorization', `Bearer ${endpoint.apiKey}`);
  return kept;
}

/** What of a client's headers may go to the endpoint, also by way of a retry worker, which adds the key. */
export function headersForEndpoint(headers: readonly string[], endpoint: Endpoint): string[] {
  return toThirdParty(headers, { forwardAuth: endpoint.apiKey === '' && endpoint.forwardAuth });
}

/**
 * Whether an answer's status counts as failed, so that something else is tried. Anything else goes to the client as it is.
 * @param ourKey whether the endpoint was called with a key of the route config: then 401, 403 and 404 are our mistake, not the client's
 */
export function countsAsFailed(status: number, ourKey: boolean): boolean {
  if (status >= 500 || status === 429 || status === 408) return true;
  return ourKey && (status === 401 || status === 403 || status === 404);
}
