import { BlockList, isIP } from 'node:net';

/** More would be a mistake, and each is looked at for each new record. */
const maxNetworks = 256;

/**
 * A comma-separated list of networks in CIDR notation, or of single addresses; blanks are trimmed.
 * `allows` says whether an IP address is in one of them. A host name never is, for what it will
 * resolve to is not ours to say. Empty: anything is allowed.
 */
export function readNetworks(
  list: string,
): { readonly allows: (host: string) => boolean } | { readonly mistake: string } {
  const items = list.split(',').map((item) => item.trim());
  if (items.length === 1 && items[0] === '') return { allows: () => true };
  if (items.length > maxNetworks) return { mistake: `${items.length} networks; at most ${maxNetworks} are allowed` };
  const networks = new BlockList();
  for (const item of items) {
    const [, address = '', bitsText] = /^([0-9A-Fa-f.:]+)(?:\/(\d{1,3}))?$/.exec(item) ?? [];
    const version = isIP(address);
    const most = version === 4 ? 32 : 128;
    const bits = bitsText === undefined ? most : Number(bitsText);
    if (version === 0 || bits > most)
      return { mistake: `${JSON.stringify(item)} is not a network as 10.0.0.0/8 or fd00::/8` };
    networks.addSubnet(address, bits, version === 4 ? 'ipv4' : 'ipv6');
  }
  return {
    allows(host) {
      const version = isIP(host);
      return version !== 0 && networks.check(host, version === 4 ? 'ipv4' : 'ipv6');
    },
  };
}
