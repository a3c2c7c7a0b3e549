import { dashed, isCredentialHeader } from './credential-headers.ts';
import { type FlatHeaders, keptHeaders } from './header-lines.ts';

/**
 * Fields in which CDNs and proxies before us, and browsers, say which way a request went, beside those of
 * `isForwardingHeader`. Some providers refuse what comes from the page of a browser.
 */
const wayNames: ReadonlySet<string> = new Set(['origin', 'referer', 'via']);
const wayPrefix =
  /^(?:cf-|cdn-|cloudfront-|fly-|x-envoy-|x-azure-|x-amzn-|x-appengine-|x-nf-|x-vercel-|akamai-|x-akamai-|fastly-)/;

/** By the whole name, or by an end such as `-client-ip`, `-connecting-ip` or `-remote-addr`. */
const forwarding =
  /^(?:forwarded|x-scheme|x-rewrite-url|x-(?:forwarded|original)(?:-.*)?)$|(?:^|-)(?:client|real|remote)?ip(?:v[46])?(?:-?addr(?:ess)?)?$|(?:^|-)(?:remote|client|viewer|peer|source|external)-addr(?:ess)?$/;

/**
 * Whether a field of this lower-case name says where a request came from, or which host, scheme and
 * path it was for before a proxy: `forwarded`, `x-forwarded-*`, `x-real-ip`, `cf-connecting-ip` …
 * `_` counts as `-`.
 */
export function isForwardingHeader(lowerName: string): boolean {
  return forwarding.test(dashed(lowerName));
}

function tellsTheWay(lowerName: string): boolean {
  const name = dashed(lowerName);
  return wayNames.has(name) || wayPrefix.test(name) || forwarding.test(name);
}

/**
 * Fields by which a server speaks of its own host, or of the account that called it. Those that say
 * where something is name a host that the client has no key for, or, relative, a path that is not
 * ours.
 */
const ownHostNames: ReadonlySet<string> = new Set([
  'accept-ch',
  'alt-svc',
  'anthropic-organization-id',
  'azure-asyncoperation',
  'clear-site-data',
  'content-location',
  'content-security-policy',
  'content-security-policy-report-only',
  'critical-ch',
  'expect-ct',
  'link',
  'location',
  'nel',
  'openai-organization',
  'openai-project',
  'operation-location',
  'public-key-pins',
  'public-key-pins-report-only',
  'refresh',
  'report-to',
  'reporting-endpoints',
  'set-cookie',
  'set-cookie2',
  'strict-transport-security',
  'x-organization-id',
]);
const ownHostPrefix = /^(?:cf-|access-control-)/;

/**
 * What of a client's fields a third party gets: no credential of the client unless `forwardAuth`,
 * and in no case what CDNs and proxies wrote. Order, case and repetition stay.
 */
export function toThirdParty(headers: readonly string[], { forwardAuth }: { forwardAuth: boolean }): FlatHeaders {
  return keptHeaders(headers, (name) => !tellsTheWay(name) && (forwardAuth || !isCredentialHeader(name)));
}

/**
 * What of a third party's fields a client gets: not those that the client would take for words
 * about our host.
 */
export function fromThirdParty(headers: readonly string[]): FlatHeaders {
  return keptHeaders(headers, (name) => !ownHostNames.has(name) && !ownHostPrefix.test(name));
}
