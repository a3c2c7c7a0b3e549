import { headerPairs, isCredentialHeader, keptHeaders, toThirdParty } from '@llm-gateway/http1';
import type { Endpoint } from './endpoint.ts';
import { joinUrl, withoutQueryCredentials } from './url.ts';

/**
 * The headers (name, value, name, value, …) of a call. The endpoint's key replaces every credential
 * of the client; the client's own are shown to a third party only when the route has no key and
 * says so. What proxies wrote never is. The route's own headers replace the client's of the same
 * names.
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

/** A shorter one is no secret, and its letters are in many words. */
const minSecretLength = 8;

/** The secrets of an endpoint that are looked for in its answers. */
export function quotableSecrets(endpoint: Endpoint): readonly string[] {
  // Of `Bearer KEY` the key.
  return secretsOf(endpoint)
    .map(([, value]) => value.slice(value.lastIndexOf(' ') + 1))
    .filter(({ length }) => length >= minSecretLength);
}

/**
 * An endpoint's failed answer as a client may have it: wherever it quotes a credential of the route
 * config, `***` stands in its place. The body of a 401, 403 or 404 that is encoded, so that nobody
 * can tell what it quotes, is left out.
 */
export function withoutSecrets<Answer extends { status: number; headers: readonly string[]; body: Buffer }>(
  answer: Answer,
  endpoint: Endpoint,
): Answer {
  const secrets = quotableSecrets(endpoint);
  if (secrets.length === 0) return answer;
  const headers = answer.headers.map((text, index) => (index % 2 === 0 ? text : masked(text, secrets)));
  const isEncoded = headers.some((name, index) => index % 2 === 0 && name.toLowerCase() === 'content-encoding');
  if (isEncoded && isOurMistake(answer.status)) {
    const kept = keptHeaders(headers, (name) => !name.startsWith('content-'));
    return { ...answer, headers: kept, body: Buffer.alloc(0) };
  }
  return { ...answer, headers, body: maskedBytes(answer.body, secrets) };
}

function masked(text: string, secrets: readonly string[]): string {
  return secrets.reduce((hidden, secret) => hidden.replaceAll(secret, '***'), text);
}

/** With `***` in the place of each secret; the bytes themselves where they hold none. */
export function maskedBytes(bytes: Buffer, secrets: readonly string[]): Buffer {
  if (!secrets.some((secret) => bytes.includes(secret, 0, 'latin1'))) return bytes;
  return Buffer.from(masked(bytes.toString('latin1'), secrets), 'latin1');
}

/** Whether the endpoint is called with a credential of the route config. */
export function hasOwnCredential(endpoint: Endpoint): boolean {
  return secretsOf(endpoint).length > 0;
}

/**
 * What of a client's headers may go to the endpoint, also by way of a retry worker, which adds the
 * key.
 */
export function headersForEndpoint(headers: readonly string[], endpoint: Endpoint): string[] {
  return toThirdParty(headers, { forwardAuth: forwardsCredentials(endpoint) });
}

/**
 * What of a client's path and query may go to the endpoint: no credential in the query, unless the
 * route says so.
 */
export function targetForEndpoint(target: string, endpoint: Endpoint): string {
  return forwardsCredentials(endpoint) ? target : withoutQueryCredentials(target);
}

/** Where the endpoint is called for a client's path and query. */
export function endpointUrl(target: string, endpoint: Endpoint): string {
  return joinUrl(endpoint.baseUrl, targetForEndpoint(target, endpoint), endpoint.addV1);
}

function forwardsCredentials({ apiKey, forwardAuth }: Endpoint): boolean {
  return apiKey === '' && forwardAuth;
}

/**
 * Whether an answer's status counts as failed, so that something else is tried. Anything else goes
 * to the client as it is. A redirect does: it is not followed, and where it leads is nothing to
 * clients.
 * @param ourKey whether the endpoint was called with a key of the route config: then 401, 403 and
 * 404 are our mistake, not the client's
 */
export function countsAsFailed(status: number, ourKey: boolean): boolean {
  if (status >= 500 || status === 429 || status === 408 || isRedirect(status)) return true;
  return ourKey && isOurMistake(status);
}

function isOurMistake(status: number): boolean {
  return status === 401 || status === 403 || status === 404;
}

/** 304 is an answer: to a question that clients of these APIs do not ask. */
export function isRedirect(status: number): boolean {
  return status >= 300 && status <= 399 && status !== 304;
}
