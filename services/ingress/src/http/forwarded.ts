import { BlockList, isIP } from 'node:net';
import {
  dashed,
  HeaderLines,
  headerPairs,
  headerValue,
  isForwardingHeader,
  keptHeaders,
  type RequestHead,
} from '@llm-gateway/http1';

/** More would be a mistake. */
const maxNetworks = 256;
/** Addresses of one request that are looked at; no chain of proxies is longer. */
const maxHops = 32;

/** The proxies before this gateway whose word about a request is believed. */
export interface TrustedProxies {
  /** @param address an IP address without a port */
  believes(address: string): boolean;
}

/**
 * Reads `--trust-forwarded`: comma-separated networks (10.0.0.0/8) and addresses, or `none`. Null
 * when it is empty: headers pass as they come.
 */
export function readTrustedProxies(
  list: string,
): { readonly proxies: TrustedProxies | null } | { readonly mistake: string } {
  if (list.trim() === '') return { proxies: null };
  const networks = new BlockList();
  const items = list.trim() === 'none' ? [] : list.split(',').map((item) => item.trim());
  if (items.length > maxNetworks) return { mistake: `${items.length} networks; at most ${maxNetworks} are allowed` };
  for (const item of items) {
    const [, address = '', bitsText] = /^([0-9A-Fa-f.:]+)(?:\/(\d{1,3}))?$/.exec(item) ?? [];
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const bits = bitsText === undefined ? most : Number(bitsText);
    if (version === 0 || bits > most) {
      return { mistake: `${JSON.stringify(item)} is no address and no network such as 10.0.0.0/8 or fd00::/8` };
    }
    networks.addSubnet(address, bits, version === 4 ? 'ipv4' : 'ipv6');
  }
  return {
    proxies: {
      believes: (address) => networks.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4'),
    },
  };
}

/** Who sent a request, and whom to believe about it. */
export interface Sender {
  /** The other end of the connection, as the socket gives it. */
  readonly address: string;
  /** Whether the connection is one of TLS. */
  readonly secure: boolean;
  readonly proxies: TrustedProxies;
}

/** The headers that are written anew. */
const told: ReadonlySet<string> = new Set(['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host']);
/**
 * Finds every line that may be one of these or another claim about the way, and few others: most
 * requests have none.
 */
const anyClaim =
  /^(?:forwarded|x[-_](?:forwarded|original|scheme|rewrite)[^:\n]*|[^:\n]*(?:ip|ipv[46]|addr|address)):/im;

/**
 * The headers of a request with `x-forwarded-for`, `-proto` and `-host` that are true: what a
 * believed sender says is kept and its address added, what any other sender says is left out. Of
 * the addresses those count that believed proxies wrote, so that a client cannot put others before
 * its own.
 */
export function withTrueWay({ headers, host }: RequestHead, { address, secure, proxies }: Sender): HeaderLines {
  const peer = plainAddress(address);
  const believed = proxies.believes(peer);
  const proto = secure ? 'https' : 'http';
  if (!anyClaim.test(headers.lines))
    return HeaderLines.ofLines(headers.lines + wayLines({ addresses: peer, proto, host }));
  const kept = keptHeaders(headers.list, (name) => !told.has(dashed(name)) && (believed || !isForwardingHeader(name)));
  const way = believed
    ? {
        addresses: trueAddresses(headers.list, peer, proxies),
        proto: firstOf(headers, 'x-forwarded-proto', /^https?$/i) ?? proto,
        host: firstOf(headers, 'x-forwarded-host', authority) ?? host,
      }
    : { addresses: peer, proto, host };
  return HeaderLines.ofLines(HeaderLines.of(kept).lines + wayLines(way));
}

const authority = /^[A-Za-z0-9._~!$&'()*+;=%:[\]-]{1,255}$/;

function wayLines({ addresses, proto, host }: { addresses: string; proto: string; host: string }): string {
  const hostLine = host === '' ? '' : `x-forwarded-host: ${host}\r\n`;
  return `x-forwarded-for: ${addresses}\r\nx-forwarded-proto: ${proto}\r\n${hostLine}`;
}

/** From the first address that no believed proxy has, to the peer. */
function trueAddresses(headers: readonly string[], peer: string, proxies: TrustedProxies): string {
  const claimed = headerPairs(headers)
    .filter(([name]) => name.toLowerCase() === 'x-forwarded-for')
    .flatMap(([, value]) => value.split(','))
    .slice(-maxHops);
  const addresses = [peer];
  while (proxies.believes(addresses[0] as string)) {
    const before = plainAddress(claimed.pop() ?? '');
    if (isIP(before) === 0) break;
    addresses.unshift(before);
  }
  return addresses.join(', ');
}

function firstOf(headers: HeaderLines, name: string, valid: RegExp): string | undefined {
  const first = headerValue(headers.list, name)?.split(',', 1)[0]?.trim();
  return first !== undefined && valid.test(first) ? first : undefined;
}

/** An address without port, brackets, zone, and the prefix that IPv6 sockets give to IPv4. */
function plainAddress(text: string): string {
  const [, bracketed] = /^\[([^\]]*)\](?::\d+)?$/.exec(text.trim()) ?? [];
  const bare = bracketed ?? text.trim().replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1');
  return bare.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
}
