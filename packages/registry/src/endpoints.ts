import { isIPv6 } from 'node:net';
import { type Instance, roles } from '@llm-gateway/protocol';

/** Where a static endpoint serves its KV cache: this much above its own port. */
const kvPortOffset = 20_000;
const maxPort = 65_535;
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
function readHostPort(text: string, defaultPort: number): HostPort | { readonly mistake: string } {
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

/** A comma-separated list of `host`, `host:port`, `[ipv6]` or `[ipv6]:port`, blanks trimmed, each once. */
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
export function readEtcdEndpoints(list: string): { readonly urls: readonly string[] } | { readonly mistake: string } {
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

/**
 * The instances of `--llm-backend-endpoints`, sorted by id, each endpoint once. Every one has all
 * roles. With `kvPorts` (a P/D protocol is set) an endpoint whose KV port (its own + 20000) would
 * not be a port is a mistake.
 */
export function readStaticEndpoints(
  list: string,
  options: { kvPorts?: boolean } = {},
): { readonly instances: readonly Instance[] } | { readonly mistake: string } {
  const instances = new Map<string, Instance>();
  for (const item of list.split(',')) {
    const address = readHostPort(item.trim(), 80);
    if ('mistake' in address) return address;
    const kvPort = address.port + kvPortOffset;
    if (options.kvPorts && kvPort > maxPort) {
      return {
        mistake: `port ${address.port} leaves no KV transfer port: port + ${kvPortOffset} is above ${maxPort}`,
      };
    }
    const id = `${bracketed(address.host)}:${address.port}_dp0`;
    instances.set(id, {
      id,
      roles: [...roles],
      host: address.host,
      port: address.port,
      kvHost: address.host,
      kvPort: kvPort > maxPort ? 0 : kvPort,
      dpRank: 0,
      dpSize: 1,
      model: '',
    });
  }
  return { instances: [...instances.values()].sort((a, b) => (a.id < b.id ? -1 : 1)) };
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
