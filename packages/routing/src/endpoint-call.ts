import { withoutHeaders } from '@llm-gateway/http1';
import type { Endpoint } from './route-table.ts';

/**
 * The headers (name, value, name, value, …) of a call. The endpoint's key replaces the client's Authorization; without a key the client's own
 * is shown to a third party only when the route says so.
 */
export function endpointHeaders(headers: readonly string[], endpoint: Endpoint): string[] {
  if (endpoint.apiKey === '' && endpoint.forwardAuth) return [...headers];
  const kept = withoutHeaders(headers, credentials);
  if (endpoint.apiKey !== '') kept.push('authorization', `Bearer ${endpoint.apiKey}`);
  return kept;
}

const credentials: ReadonlySet<string> = new Set(['authorization']);

/**
 * Whether an answer's status counts as failed, so that something else is tried. Anything else goes to the client as it is.
 * @param ourKey whether the endpoint was called with a key of the route config: then 401, 403 and 404 are our mistake, not the client's
 */
export function countsAsFailed(status: number, ourKey: boolean): boolean {
  if (status >= 500 || status === 429 || status === 408) return true;
  return ourKey && (status === 401 || status === 403 || status === 404);
}
