import { once } from 'node:events';
import type { AddressInfo, Server } from 'node:net';
import { type BindFlags, bindError } from './bind-error.ts';

/** Stands for every address of the machine, IPv4 and IPv6. */
const everyAddress = '::';
const everyIpv4Address = '0.0.0.0';
/** What binding it says on a machine without IPv6: no such protocol, or no such address. */
const noIpv6: ReadonlySet<unknown> = new Set(['EAFNOSUPPORT', 'EADDRNOTAVAIL', 'EINVAL']);

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
  /** Which flags say so; `--host` and `--port` by default. */
  readonly flags?: BindFlags;
}

const clientFlags: BindFlags = { host: 'host', port: 'port' };

/**
 * Binds a TCP or HTTP server; port 0 takes any free one. The host `::` takes IPv4 connections as
 * well, and on a machine without IPv6 it stands for every IPv4 address. Returns the address as a
 * URL, `http://[::]:9090`, and the port. Rejects with a `BindError` when it cannot be bound, or
 * another error of the system.
 */
export async function listen(
  server: Server,
  { host, port, flags = clientFlags }: ListenAddress,
): Promise<{ readonly url: string; readonly port: number }> {
  try {
    await bind(server, { host, port });
  } catch (error) {
    const isWithoutIpv6 = host === everyAddress && error instanceof Error && 'code' in error && noIpv6.has(error.code);
    if (!isWithoutIpv6) throw bindError(error, { host, port }, flags);
    await bind(server, { host: everyIpv4Address, port }).catch((cause: unknown) => {
      throw bindError(cause, { host, port }, flags);
    });
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
