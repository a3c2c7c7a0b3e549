import { isCredentialParameter } from '@llm-gateway/http1';

/** `/v1` as a whole path segment; not `/v1beta`. */
const leadingVersion = /^\/v\d+(?=[/?#]|$)/;
/**
 * A version that ends the path of a base; the host in front keeps `http://v1` from looking like
 * one.
 */
const trailingVersion = /^[^:/?#]+:\/\/[^/]+(?:\/.*)?\/v\d+$/;

/**
 * Where other APIs have a door for OpenAI's clients that takes no version: Gemini, DeepInfra,
 * Azure.
 */
const unversionedDoor = /\/v\d+(?:alpha|beta)?\/openai$|\/openai\/deployments\/[^/]+$/;

/**
 * The URL of a client's path (with its query) at an endpoint. One trailing `/` of the base is
 * dropped; when the base ends in a version segment, a version segment that begins the path is
 * dropped, so that neither is doubled. The query of the base comes first, and the client cannot
 * repeat a parameter of it, in whatever escapes and case.
 * @param base the base URL of an endpoint: absolute, with a query or without
 * @param pathAndQuery begins with `/`
 * @param addV1 whether the path keeps its version behind a base that ends in none; null: unless the
 * base is known for taking none
 */
export function joinUrl(base: string, pathAndQuery: string, addV1: boolean | null = null): string {
  const [front, baseQuery] = cutQuery(base);
  const root = front.endsWith('/') ? front.slice(0, -1) : front;
  const takesVersion = !trailingVersion.test(root) && (addV1 ?? !unversionedDoor.test(root));
  const [path, query] = cutQuery(takesVersion ? pathAndQuery : pathAndQuery.replace(leadingVersion, ''));
  if (baseQuery === '') return root + path + query;
  const own = new Set(baseQuery.slice(1).split('&').map(nameOf));
  const more = query
    .slice(1)
    .split('&')
    .filter((parameter) => parameter !== '' && !own.has(nameOf(parameter)));
  return `${root}${path}${[baseQuery, ...more].join('&')}`;
}

/** The query from its question mark on; empty without one. */
function cutQuery(url: string): [front: string, query: string] {
  const start = url.indexOf('?');
  return start < 0 ? [url, ''] : [url.slice(0, start), url.slice(start)];
}

/**
 * The path and query without the parameters that are credentials: see `isCredentialParameter`.
 * @param options.key nor those in which it stands, unless null
 */
export function withoutQueryCredentials(
  pathAndQuery: string,
  { thirdParty, key }: { thirdParty: boolean; key: string | null } = { thirdParty: true, key: null },
): string {
  const [path, query] = cutQuery(pathAndQuery);
  if (query === '') return pathAndQuery;
  const parameters = query.slice(1).split('&');
  const kept = parameters.filter(
    (parameter) =>
      !isCredentialParameter(decodedName(parameter), { thirdParty }) &&
      (key === null || !(parameter.includes(key) || decoded(parameter).includes(key))),
  );
  if (kept.length === parameters.length) return pathAndQuery;
  return kept.length === 0 ? path : `${path}?${kept.join('&')}`;
}

/** For comparisons: some servers do not tell the case of a name. */
function nameOf(parameter: string): string {
  return decodedName(parameter).toLowerCase();
}

function decodedName(parameter: string): string {
  return decoded(parameter.split('=', 1)[0] as string);
}

/** As it stands where its escapes are not valid. */
function decoded(raw: string): string {
  if (!/[%+]/.test(raw)) return raw;
  try {
    return decodeURIComponent(raw.replaceAll('+', ' '));
  } catch {
    return raw;
  }
}

/** A base URL as logs show it: its query may hold a key. */
export function shownUrl(base: string): string {
  const [front, query] = cutQuery(base);
  return query === '' ? front : `${front}?…`;
}

/**
 * Whether this is a base URL: absolute, http or https, without credentials and fragment, and
 * without a query unless `withQuery`. Stricter than the URL parser, which repairs blanks,
 * backslashes and missing slashes that `joinUrl` would keep; and in printable ASCII, because
 * nothing else can be sent as a path or in a header.
 */
export function isBaseUrl(text: string, { withQuery = false } = {}): boolean {
  const [front, query] = cutQuery(text);
  if (query !== '' && (!withQuery || /[#\\]/.test(query))) return false;
  return /^[\x21-\x7e]+$/.test(text) && /^https?:\/\/[^/?#@\\]+(?:\/[^?#\\]*)?$/i.test(front) && URL.canParse(text);
}

/**
 * A base URL with its scheme, host and port in the one way that the URL parser writes them. The
 * path stays as it is, as for a call.
 */
export function comparableUrl(base: string): string {
  return new URL(base).origin + base.replace(/^[^/]*\/\/[^/?]*/, '');
}
