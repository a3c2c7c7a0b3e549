import { networkInterfaces } from 'node:os';

/** What a listener is bound to when it listens on every address. */
const everyAddress: ReadonlySet<string> = new Set(['', '0.0.0.0', '::']);

/**
 * Where other processes reach a listener of this one: `--advertise-host`; else the address that it
 * was told to listen on; else, when that stands for all there are, the first that is not loopback,
 * IPv4 first.
 */
export function advertisedHost({ advertiseHost, listenHost }: { advertiseHost: string; listenHost: string }): string {
  if (advertiseHost) return advertiseHost;
  if (!everyAddress.has(listenHost)) return listenHost;
  const outside = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, scopeid }) => !internal && !scopeid);
  const chosen = outside.find(({ family }) => family === 'IPv4') ?? outside[0];
  return chosen?.address ?? '127.0.0.1';
}
