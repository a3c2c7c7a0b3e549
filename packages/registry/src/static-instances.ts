import { type Instance, roles } from '@llm-gateway/protocol';
import { bracketed, maxPort, readHostPort } from './addresses.ts';

/** Where an instance of a static list serves its KV cache: this much above its own port. */
const kvPortOffset = 20_000;

/**
 * The instances of `--llm-backend-endpoints`, sorted by id, each address once. Every one has all
 * roles. With `kvPorts` (a P/D protocol is set) an address whose KV port (its own + 20000) would
 * not be a port is a mistake.
 */
export function readStaticInstances(
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
