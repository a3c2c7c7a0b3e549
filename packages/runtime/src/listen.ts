import { once } from 'node:events';
import type { AddressInfo, Server } from 'node:net';

/** Stands for every address of the machine, IPv4 and IPv6. */
const everyAddress = '::';
const everyIpv4Address = '0.0.0.0';
/** What binding it says on a machine without IPv6: no such protocol, or no such address. */
const noIpv6: ReadonlySet<unknown> = new Set(['EAFNOSUPPORT', 'EADDRNOTAVAIL', 'EINVAL']);

/**
 * Binds a TCP or HTTP server; port 0 takes any free one. The host `::` takes IPv4 connections as well, and on a machine
 * without IPv6 it stands for every IPv4 address. Returns the address as a URL, `http://[::]:9090`, and the port. Rejects
 * with the system's error when it cannot be bound.
 */
export async function listen(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<{ readonly url: string; readonly port: number }> {
  try {
    await bind(server, { host, port });
  } catch (error) {
    if (host !== everyAddress || !(error instanceof Error && 'code' in error && noIpv6.has(error.code))) throw error;
    await bind(server, { host: everyIpv4Address, port });
  }
  const bound = server.address() as AddressInfo;
  const name = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return { url: `http://${name}:${bound.port}`, port: bound.port };
}

async function bind(server: Server, address: { readonly host: string; readonly port: number }): Promise<void> {
  const listening = once(server, 'listening');
  server.listen(address);
  await listening;
}
