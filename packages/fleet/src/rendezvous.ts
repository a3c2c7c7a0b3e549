/**
 * FNV-1a, and the last steps of MurmurHash3, without which names that end alike would be close to
 * each other. 32 bits, unsigned.
 */
export function hashOf(text: string): number {
  let h = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) h = Math.imul(h ^ text.charCodeAt(at), 0x01000193);
  return finished(h);
}

/**
 * How much a key wants to go to a place, by their hashes: a key goes where the weight is largest.
 * 32 bits, unsigned.
 */
export function rendezvousWeight(key: number, place: number): number {
  return finished(Math.imul(key ^ 0x9e3779b9, 0x85ebca6b) ^ place);
}

/** A pool in the names that decide who owns it; `model` as of `Fleet.poolOf`. */
export function poolName(model: string | null): string {
  return model === null ? 'any' : `=${model}`;
}

/**
 * The router that decides for the pool, by rendezvous hashing: all who see the same routers name
 * the same one, and a router that comes or goes moves no pool but those that it gets or had.
 * Undefined when there is none.
 */
export function ownerOf(pool: string, routers: Iterable<string>, except: ReadonlySet<string>): string | undefined {
  let owner: string | undefined;
  let best = -1;
  for (const router of routers) {
    if (except.has(router)) continue;
    const score = hashOf(`${router} ${pool}`);
    if (score < best || (score === best && owner !== undefined && router > owner)) continue;
    best = score;
    owner = router;
  }
  return owner;
}

function finished(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
