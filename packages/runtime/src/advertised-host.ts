import { networkInterfaces } from 'node:os';

/** Where other processes reach this one: `--advertise-host`, or the first address that is not loopback, IPv4 first. */
export function advertisedHost(configured: string): string {
  if (configured) return configured;
  const outside = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, scopeid }) => !internal && !scopeid);
  const chosen = outside.find(({ family }) => family === 'IPv4') ?? outside[0];
  return chosen?.address ?? '127.0.0.1';
}
