/** `host:port`, as it stands in URLs and `Host`; `host` may be a bare IPv6 address. */
export function authorityOf({ host, port }: { host: string; port: number }): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The origin of an HTTP server; `host` may be a bare IPv6 address. */
export function originOf(address: { host: string; port: number }): string {
  return `http://${authorityOf(address)}`;
}

/**
 * An absolute http(s) URL, cut into the parts that a request is made of. Cut, not parsed: the URL parser would
 * rewrite a path that the client meant as it is.
 */
export function splitUrl(url: string): { origin: string; host: string; path: string } {
  const hostStart = url.indexOf('//') + 2;
  const pathStart = url.indexOf('/', hostStart);
  return { origin: url.slice(0, pathStart), host: url.slice(hostStart, pathStart), path: url.slice(pathStart) };
}

/** A request's target, taken apart. */
export interface Target {
  /** Without percent-encodings that need none; as it came when they cannot be decoded. */
  readonly path: string;
  /** From the question mark on, as the client wrote it; empty without one. */
  readonly query: string;
  /** The authority of the absolute form; null in the origin form. */
  readonly authority: string | null;
}

/** Null for a target that is neither in the origin nor in the absolute form (RFC 9112 section 3.2), or has a fragment. */
export function parseTarget(target: string): Target | null {
  if (target.includes('#')) return null;
  if (target.startsWith('/')) return { ...splitQuery(target), authority: null };
  const absolute = /^https?:\/\/([^/?]+)(.*)$/i.exec(target);
  if (absolute === null) return null;
  const [, authority = '', rest = ''] = absolute;
  return { ...splitQuery(rest.startsWith('/') ? rest : `/${rest}`), authority };
}

function splitQuery(text: string): { path: string; query: string } {
  const start = text.indexOf('?');
  const path = start < 0 ? text : text.slice(0, start);
  return { path: path.includes('%') ? decoded(path) : path, query: start < 0 ? '' : text.slice(start) };
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Whether two authorities name the same server, port 80 being the default of `http`. */
export function isSameAuthority(a: string, b: string): boolean {
  return canonical(a) === canonical(b);
}

function canonical(authority: string): string {
  return authority.toLowerCase().replace(/:(?:80)?$/, '');
}
