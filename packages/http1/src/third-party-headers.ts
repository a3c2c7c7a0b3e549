import { isCredentialHeader } from './credential-headers.ts';
import { type FlatHeaders, keptHeaders } from './header-lines.ts';

/**
 * Fields in which CDNs and proxies before us, and browsers, say where a request came from and which way it went. Some
 * providers refuse what comes from the page of a browser.
 */
const wayNames: ReadonlySet<string> = new Set([
  'cdn-loop',
  'client-ip',
  'origin',
  'referer',
  'forwarded',
  'remote-addr',
  'true-client-ip',
  'via',
  'x-client-ip',
  'x-cluster-client-ip',
  'x-forwarded',
  'x-original-forwarded-for',
  'x-original-host',
  'x-original-uri',
  'x-original-url',
  'x-real-ip',
  'x-rewrite-url',
  'x-scheme',
]);
const wayPrefix = /^(?:cf-|x-forwarded-|x-envoy-|x-azure-|x-amzn-|x-appengine-|x-vercel-|akamai-|x-akamai-|fastly-)/;

/** Fields by which a server speaks of its own host, or of the account that called it. */
const ownHostNames: ReadonlySet<string> = new Set([
  'accept-ch',
  'alt-svc',
  'anthropic-organization-id',
  'clear-site-data',
  'content-security-policy',
  'content-security-policy-report-only',
  'critical-ch',
  'expect-ct',
  'nel',
  'openai-organization',
  'openai-project',
  'public-key-pins',
  'public-key-pins-report-only',
  'report-to',
  'reporting-endpoints',
  'set-cookie',
  'set-cookie2',
  'strict-transport-security',
  'x-organization-id',
]);
const ownHostPrefix = /^(?:cf-|access-control-)/;

/**
 * What of a client's fields a third party gets: no credential of the client unless `forwardAuth`, and in no case what
 * CDNs and proxies wrote. Order, case and repetition stay.
 */
export function toThirdParty(headers: readonly string[], { forwardAuth }: { forwardAuth: boolean }): FlatHeaders {
  return keptHeaders(
    headers,
    (name) => !wayNames.has(name) && !wayPrefix.test(name) && (forwardAuth || !isCredentialHeader(name)),
  );
}

/** What of a third party's fields a client gets: not those that the client would take for words about our host. */
export function fromThirdParty(headers: readonly string[]): FlatHeaders {
  return keptHeaders(headers, (name) => !ownHostNames.has(name) && !ownHostPrefix.test(name));
}
