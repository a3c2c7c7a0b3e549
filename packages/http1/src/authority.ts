/** `host:port`, as it stands in URLs and `Host`; `host` may be a bare IPv6 address. */
export function authorityOf({ host, port }: { host: string; port: number }): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The origin of an HTTP server; `host` may be a bare IPv6 address. */
export function originOf(address: { host: string; port: number }): string {
  return `http://${authorityOf(address)}`;
}

/**
 * An absolute http(s) URL, cut into the parts that a request is made of. Cut, not parsed: the URL
 * parser would rewrite a path that the client meant as it is.
 */
export function splitUrl(url: string): { origin: string; host: string; path: string } {
  const hostStart = url.indexOf('//') + 2;
  const pathStart = url.indexOf('/', hostStart);
  return { origin: url.slice(0, pathStart), host: url.slice(hostStart, pathStart), path: url.slice(pathStart) };
}

/** A request's target, taken apart. */
export interface Target {
  /**
   * As the client wrote it, but for percent-encodings of characters that need none (RFC 3986
   * section 6.2.2.2).
   */
  readonly path: string;
  /** From the question mark on, as the client wrote it; empty without one. */
  readonly query: string;
  /** The authority of the absolute form; null in the origin form. */
  readonly authority: string | null;
}

/**
 * Takes a target apart. Null for one that is neither in the origin nor in the absolute form (RFC
 * 9112 section 3.2) of an HTTP server, or has a fragment.
 */
export function parseTarget(target: string): Target | null {
  if (target.includes('#')) return null;
  if (target.startsWith('/')) return { ...splitQuery(target), authority: null };
  const absolute = /^https?:\/\/([^/?]+)(.*)$/i.exec(target);
  if (absolute === null) return null;
  const [, authority = '', rest = ''] = absolute;
  if (!isAuthority(authority)) return null;
  return { ...splitQuery(rest.startsWith('/') ? rest : `/${rest}`), authority };
}

function splitQuery(text: string): { path: string; query: string } {
  const start = text.indexOf('?');
  const path = start < 0 ? text : text.slice(0, start);
  return { path: path.includes('%') ? decoded(path) : path, query: start < 0 ? '' : text.slice(start) };
}

/** Decodes unreserved characters alone: an escaped `/` is not the `/` between two segments. */
function decoded(path: string): string {
  return path.replace(/%[0-9a-f]{2}/gi, (escaped) => {
    const character = String.fromCharCode(Number.parseInt(escaped.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : escaped;
  });
}

const authorityForm = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::\d{0,5})?$/;

/** Whether `text` is a host with or without a port (RFC 3986 section 3.2). */
export function isAuthority(text: string): boolean {
  return authorityForm.test(text);
}

/** Whether two authorities name the same server, port 80 being the default of `http`. */
export function isSameAuthority(a: string, b: string): boolean {
  return canonical(a) === canonical(b);
}

function canonical(authority: string): string {
  return authority.toLowerCase().replace(/:(?:80)?$/, '');
}
