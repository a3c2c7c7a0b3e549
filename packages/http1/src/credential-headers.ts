import { type FlatHeaders, HeaderLines, keptHeaders } from './header-lines.ts';

/**
 * Header fields by which a client shows who it is, in lower case: keys of APIs, tokens of sign-on
 * proxies, cookies, and the account that a key belongs to. `Proxy-Authorization` is a hop-by-hop
 * field, which goes nowhere.
 */
export const credentialHeaders: ReadonlySet<string> = new Set([
  'authorization',
  'authentication',
  'cookie',
  'cookie2',
  'dpop',
  'key',
  'sid',
  'sec-token-binding',
  'signature',
  'signature-input',
  'x-authentication',
  'x-bearer',
  'x-hub-signature',
  'x-hub-signature-256',
  'x-jwt-payload',
  'x-key',
  'x-passphrase',
  'x-pat',
  'x-signature',
  // APIs of models.
  'x-api-key',
  'api-key',
  'apikey',
  'x-goog-api-key',
  'xi-api-key',
  'ocp-apim-subscription-key',
  'subscription-key',
  'x-subscription-key',
  'x-rapidapi-key',
  'helicone-auth',
  'openai-organization',
  'openai-project',
  'x-goog-user-project',
  // Clouds.
  'x-amz-security-token',
  'x-functions-key',
  'x-ms-authorization-auxiliary',
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
  'remote-email',
  'remote-groups',
  'remote-name',
  'remote-user',
  'x-endpoint-api-userinfo',
  'x-remote-user',
  'x-client-cert',
  'ssl-client-cert',
]);

/**
 * How the names of all others end that are made for a secret: `x-acme-key`, `private-token`,
 * `stripe-signature`.
 */
const secretEnding =
  /(?:^|-)(?:key|(?:api|app|auth|access|secret)key|secret|token|auth|authorization|authentication|bearer|password|passwd|jwt|assertion|credentials?|signature(?:-input|-\d+)?)$/;

/** Keys that are no secrets: they name a request, a place in a cache, or a share of the load. */
const plainKey = /(?:^|-)(?:idempotency|cache|surrogate|partition|routing|sort)-key$/;

/** How the names begin by which proxies that sign users on say who the user is. */
const identityPrefix =
  /^(?:x-auth-|x-authentik-|x-authenticated-|tailscale-|x-amzn-oidc-|oidc-|x-goog-authenticated-user-|x-ms-client-principal|x-ms-token-|x-pomerium-|x-vouch-|x-webauth-|x-remote-|x-consumer-|x-userinfo|teleport-|client-cert|(?:x-)?ssl-client-|x-tls-client-)/;

/**
 * Whether a field of this lower-case name is a credential: one of `credentialHeaders`, named like a
 * secret, or what a sign-on proxy says of the user. A name that ends in `-key` is a secret, except
 * for those of `plainKey`, such as `idempotency-key`. `_` counts as `-`: many servers do not tell
 * them apart.
 */
export function isCredentialHeader(lowerName: string): boolean {
  const name = dashed(lowerName);
  return credentialHeaders.has(name) || identityPrefix.test(name) || isSecretName(name);
}

/**
 * Whether a parameter of a query is a credential, by its decoded name. Only to third parties `code`
 * and `sas` are: `key`, `api_key`, `accessToken`, `X-Amz-Signature`. Of a list (`key[]`) the name
 * counts. Tokens of pages are none.
 */
export function isCredentialParameter(name: string, { thirdParty } = { thirdParty: true }): boolean {
  const plain = name.replace(/\[[^\]]*\]$/, '');
  const words = dashed(plain.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase());
  return (
    words === 'sig' ||
    (thirdParty && linkSecrets.has(words)) ||
    credentialHeaders.has(words) ||
    (isSecretName(words) && !pageToken.test(words))
  );
}

/** Parameters of signed links. */
const linkSecrets: ReadonlySet<string> = new Set(['sas', 'code']);

const pageToken = /(?:^|-)(?:page|next|continuation|sync)-token$/;

function isSecretName(name: string): boolean {
  return secretEnding.test(name) && !plainKey.test(name);
}

/** The name as servers read it that take `_` for `-`. */
export function dashed(name: string): string {
  return name.includes('_') ? name.replaceAll('_', '-') : name;
}

/**
 * The fields that are no credentials, and in whose values `secret` does not stand; order, case and
 * repetition stay. The same object where all are such.
 */
export function withoutSecrets(headers: HeaderLines, secret: string): HeaderLines {
  const { lines } = headers;
  const mayHold = lines.includes(secret);
  let kept = '';
  let runStart = 0;
  for (let at = 0; at < lines.length; ) {
    const colon = placeOf(COLON, lines, at);
    const end = placeOf(LF, lines, colon) + 1;
    if (isCredentialName(lines.slice(at, colon)) || (mayHold && lines.slice(colon + 1, end).includes(secret))) {
      kept += lines.slice(runStart, at);
      runStart = end;
    }
    at = end;
  }
  return runStart === 0 ? headers : HeaderLines.ofLines(kept + lines.slice(runStart));
}

const COLON = 0x3a;
const LF = 0x0a;

/** As `indexOf`, which takes much longer for text that was put together of pieces. */
function placeOf(octet: number, text: string, from: number): number {
  let at = from;
  while (at < text.length && text.charCodeAt(at) !== octet) at++;
  return at;
}

/**
 * Whether a field of this name, in any case, is a credential; remembered of the names seen last.
 */
function isCredentialName(name: string): boolean {
  const known = knownNames.get(name);
  if (known !== undefined) return known;
  const isCredential = isCredentialHeader(name.toLowerCase());
  if (name.length > maxKnownLength) return isCredential;
  // Names are the client's word.
  if (knownNames.size >= maxKnownNames) knownNames.clear();
  // A copy: a part of the head would keep all of it, keys included, in memory.
  knownNames.set(Buffer.from(name, 'latin1').toString('latin1'), isCredential);
  return isCredential;
}

const knownNames = new Map<string, boolean>();
const maxKnownNames = 1000;
const maxKnownLength = 64;

/** The fields without the client's credentials; order, case and repetition of the others stay. */
export function withoutCredentials(headers: readonly string[]): FlatHeaders {
  return keptHeaders(headers, (lowerName) => !isCredentialHeader(lowerName));
}
