import { isIPv6 } from 'node:net';

export const maxPort = 65_535;
const hostName = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$/;

/**
 * A DNS name or an IP address, IPv6 without brackets. It becomes part of a URL: nothing else may
 * get there.
 */
export function isHost(text: string): boolean {
  return hostName.test(text) || isIPv6(text);
}

export interface HostPort {
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
}

/**
 * `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
 * Returns the mistake as text when it is none of these.
 */
export function readHostPort(text: string, defaultPort: number): HostPort | { readonly mistake: string } {
  const mistake = { mistake: `${JSON.stringify(text)} is not host, host:port or [ipv6]:port` };
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(text);
  if (!match) return mistake;
  const [, ipv6, name, portText] = match;
  if (ipv6 === undefined ? !hostName.test(name ?? '') : !isIPv6(ipv6)) return mistake;
  const port = portText === undefined ? defaultPort : Number(portText);
  if (port < 1 || port > maxPort) return { mistake: `port ${port} of ${JSON.stringify(text)} is not in 1-${maxPort}` };
  return { host: ipv6 ?? name ?? '', port };
}

const maxAddresses = 100;

/**
 * A comma-separated list of `host`, `host:port`, `[ipv6]` or `[ipv6]:port`, blanks trimmed, each
 * once.
 */
export function readAddresses(
  list: string,
  defaultPort: number,
): { readonly addresses: readonly HostPort[] } | { readonly mistake: string } {
  const addresses = new Map<string, HostPort>();
  for (const item of list.split(',')) {
    const address = readHostPort(item.trim(), defaultPort);
    if ('mistake' in address) return address;
    addresses.set(`${address.host}:${address.port}`, address);
  }
  if (addresses.size > maxAddresses) return { mistake: `names ${addresses.size} addresses; at most ${maxAddresses}` };
  return { addresses: [...addresses.values()] };
}

/**
 * A comma-separated list of etcd endpoints as URLs; `http://` when an endpoint names no scheme,
 * blanks trimmed.
 */
export function readEtcdUrls(list: string): { readonly urls: readonly string[] } | { readonly mistake: string } {
  const urls: string[] = [];
  for (const item of list.split(',')) {
    const text = item.trim();
    if (text === '') continue;
    const [, scheme, rest] = /^(?:(https?):\/\/)?(.*?)\/?$/.exec(text) ?? [];
    const address = readHostPort(rest ?? '', 2379);
    if ('mistake' in address) return address;
    const url = `${scheme ?? 'http'}://${bracketed(address.host)}:${address.port}`;
    if (!urls.includes(url)) urls.push(url);
  }
  if (urls.length === 0) return { mistake: 'names no endpoint' };
  if (new Set(urls.map((url) => url.startsWith('https:'))).size > 1) {
    return { mistake: 'mixes http and https; the endpoints of one cluster have one of them' };
  }
  return { urls };
}

/** As it stands before a port. */
export function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
