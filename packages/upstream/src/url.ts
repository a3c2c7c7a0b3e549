/**
 * An absolute http(s) URL with a path as `UpstreamRequest` wants it. Cut, not parsed: the URL parser would rewrite a path that the client meant
 * as it is.
 */
export function splitUrl(url: string): { origin: string; host: string; path: string } {
  const hostStart = url.indexOf('//') + 2;
  const pathStart = url.indexOf('/', hostStart);
  return { origin: url.slice(0, pathStart), host: url.slice(hostStart, pathStart), path: url.slice(pathStart) };
}

/** The origin of an HTTP server; `host` may be a bare IPv6 address. */
export function originOf({ host, port }: { host: string; port: number }): string {
  return host.includes(':') && !host.startsWith('[') ? `http://[${host}]:${port}` : `http://${host}:${port}`;
}
