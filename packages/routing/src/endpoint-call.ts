import { headerPairs, isCredentialHeader, keptHeaders, toThirdParty } from '@llm-gateway/http1';
import type { Endpoint } from './route-table.ts';

/**
 * The headers (name, value, name, value, …) of a call. The endpoint's key replaces every credential of the client; the
 * client's own are shown to a third party only when the route has no key and says so. What proxies wrote never is.
 * The route's own headers replace the client's of the same names.
 */
export function endpointHeaders(headers: readonly string[], endpoint: Endpoint): string[] {
  const { apiKey, authHeader } = endpoint;
  const own = [...endpoint.headers];
  if (apiKey !== '') own.push(authHeader, authHeader === 'authorization' ? `Bearer ${apiKey}` : apiKey);
  const kept = headersForEndpoint(headers, endpoint);
  if (own.length === 0) return kept;
  const names = new Set(own.filter((_, index) => index % 2 === 0));
  return [...keptHeaders(kept, (name) => !names.has(name)), ...own];
}

/** What of the endpoint must not be shown, by the name of its field behind that of the row. */
export function secretsOf({
  apiKey,
  headers,
  baseUrl,
}: Endpoint): readonly (readonly [field: string, value: string])[] {
  const secrets = headerPairs(headers)
    .filter(([name]) => isCredentialHeader(name))
    .map(([name, value]) => [`.headers.${name}`, value] as const);
  const query = URL.parse(baseUrl)?.searchParams ?? [];
  const inQuery = [...query].filter(([name, value]) => value !== '' && /key|token|secret|sig|auth|pass/i.test(name));
  const all = [...secrets, ...inQuery.map(([name, value]) => [`.base_url?${name}`, value] as const)];
  return apiKey === '' ? all : [['', apiKey], ...all];
}

/** Whether the endpoint is called with a credential of the route config. */
export function hasOwnCredential(endpoint: Endpoint): boolean {
  return secretsOf(endpoint).length > 0;
}

/** What of a client's headers may go to the endpoint, also by way of a retry worker, which adds the key. */
export function headersForEndpoint(headers: readonly string[], endpoint: Endpoint): string[] {
  return toThirdParty(headers, { forwardAuth: endpoint.apiKey === '' && endpoint.forwardAuth });
}

/**
 * Whether an answer's status counts as failed, so that something else is tried. Anything else goes to the client as it is.
 * A redirect does: it is not followed, and where it leads is nothing to clients.
 * @param ourKey whether the endpoint was called with a key of the route config: then 401, 403 and 404 are our mistake, not the client's
 */
export function countsAsFailed(status: number, ourKey: boolean): boolean {
  if (status >= 500 || status === 429 || status === 408 || isRedirect(status)) return true;
  return ourKey && (status === 401 || status === 403 || status === 404);
}

/** 304 is an answer: to a question that clients of these APIs do not ask. */
export function isRedirect(status: number): boolean {
  return status >= 300 && status <= 399 && status !== 304;
}
