/** `/v1` as a whole path segment; not `/v1beta`. */
const leadingVersion = /^\/v\d+(?=[/?#]|$)/;
/** A version that ends the path of a base; the host in front keeps `http://v1` from looking like one. */
const trailingVersion = /^[^:/?#]+:\/\/[^/]+(?:\/.*)?\/v\d+$/;

/**
 * The URL of a client's path (with its query) at an endpoint. One trailing `/` of the base is dropped; when the base ends
 * in a version segment, a version segment that begins the path is dropped, so that neither is doubled.
 * `base` is the base URL of an endpoint (absolute, no query); `pathAndQuery` begins with `/`.
 */
export function joinUrl(base: string, pathAndQuery: string): string {
  const root = base.endsWith('/') ? base.slice(0, -1) : base;
  return root + (trailingVersion.test(root) ? pathAndQuery.replace(leadingVersion, '') : pathAndQuery);
}

/**
 * Whether this is a base URL: absolute, http or https, without credentials, query and fragment. Stricter than the URL parser, which repairs blanks,
 * backslashes and missing slashes that `joinUrl` would keep; and in printable ASCII, because nothing else can be sent as a path or in a header.
 */
export function isBaseUrl(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text) && /^https?:\/\/[^/?#@\\]+(?:\/[^?#\\]*)?$/i.test(text) && URL.canParse(text);
}

/** A base URL with its scheme, host and port in the one way that the URL parser writes them. The path stays as it is, as for a call. */
export function comparableUrl(base: string): string {
  const pathStart = base.indexOf('/', base.indexOf('//') + 2);
  return new URL(base).origin + (pathStart < 0 ? '' : base.slice(pathStart));
}
