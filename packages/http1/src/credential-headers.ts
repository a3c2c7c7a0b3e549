import { type FlatHeaders, keptHeaders } from './header-lines.ts';

/**
 * Header fields by which a client shows who it is, in lower case: keys of APIs, tokens of sign-on proxies, cookies, and
 * the account that a key belongs to. `Proxy-Authorization` is a hop-by-hop field, which goes nowhere.
 */
export const credentialHeaders: ReadonlySet<string> = new Set([
  'authorization',
  'authentication',
  'cookie',
  'cookie2',
  // APIs of models.
  'x-api-key',
  'api-key',
  'apikey',
  'x-goog-api-key',
  'xi-api-key',
  'ocp-apim-subscription-key',
  'helicone-auth',
  'openai-organization',
  'openai-project',
  'x-goog-user-project',
  // Clouds.
  'x-amz-security-token',
  // Proxies that sign users on.
  'x-amzn-oidc-accesstoken',
  'x-amzn-oidc-data',
  'x-amzn-oidc-identity',
  'x-auth-request-email',
  'x-auth-request-groups',
  'x-auth-request-preferred-username',
  'x-auth-request-user',
  'x-goog-authenticated-user-email',
  'x-goog-authenticated-user-id',
  'x-goog-iap-jwt-assertion',
  'x-ms-client-principal',
  'x-ms-client-principal-id',
  'x-ms-client-principal-name',
  'remote-user',
  'x-remote-user',
  'x-client-cert',
  'ssl-client-cert',
]);

/** How the names of all others end that are made for a secret: `x-acme-api-key`, `private-token`, `x-app-secret`. */
const secretEnding =
  /(?:^|-)(?:api-?key|access-?key|secret|secret-?key|token|auth|authorization|password|jwt|assertion|credentials?)$/;

/** Whether a field of this lower-case name is a credential: one of `credentialHeaders`, or named like a secret. */
export function isCredentialHeader(lowerName: string): boolean {
  return credentialHeaders.has(lowerName) || secretEnding.test(lowerName);
}

/** The fields without the client's credentials; order, case and repetition of the others stay. */
export function withoutCredentials(headers: readonly string[]): FlatHeaders {
  return keptHeaders(headers, (lowerName) => !isCredentialHeader(lowerName));
}
