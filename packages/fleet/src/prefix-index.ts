import type { Fingerprints } from '@llm-gateway/protocol';

/**
 * Beyond so many instances that hold one beginning, the one that was given it the longest ago is
 * forgotten for it.
 */
const maxHolders = 64;
/**
 * So many holders are looked at for one prompt, the longest beginnings first: what is left counts
 * as not cached.
 */
const maxVisits = 1024;
/**
 * What was used so lately is as good as used now: its order need not change. A cache that turns over
 * in less time is of no use to anybody.
 */
const freshSeconds = 1;
const firstNodes = 1024;
const none = -1;

/**
 * The parts of a node, each 32 bits, side by side: a node is mostly not in the processor's cache,
 * and so costs one access to memory and not eight. A key of 36 bits is two of them.
 */
const keyLow = 0;
const keyHigh = 1;
const shelfOf = 2;
/** The next holder of the same key; of a free node the next free one. */
const nextOf = 3;
const newerOf = 4;
const olderOf = 5;
const bytesOf = 6;
/** Seconds. */
const usedAtOf = 7;
const nodeParts = 8;

/**
 * Those of a place in the hash table. Its high part tells that it is taken: it is one more than
 * that of its key.
 */
const placeLow = 0;
const placeHigh = 1;
const placeHead = 2;
/** How many nodes hang there. */
const placeCount = 3;
const placeParts = 4;

export interface PrefixIndexOptions {
  /** Beginnings remembered over all instances. One takes about 60 bytes. */
  readonly maxEntries: number;
  /** A beginning that no request used for so long is forgotten. */
  readonly maxAgeMs: number;
}

/** What one instance is believed to hold, as a list from the most recently used to the least. */
interface Shelf {
  newest: number;
  oldest: number;
  bytes: number;
  capacityBytes: number;
}

/** A beginning, and how many bytes it has more than the one before. */
interface Part {
  readonly key: number;
  readonly bytes: number;
  readonly seconds: number;
}

/**
 * Which instance was given which beginnings of prompts, and so may still have them in its KV cache.
 * Instances are small numbers, made by `open`. Each has a shelf that holds as many bytes as its
 * cache: what was used the longest ago falls out first, the ends of prompts before their
 * beginnings.
 *
 * Everything lies in two arrays of numbers: nodes, one for each beginning of each instance, and a
 * hash table from a fingerprint to its first node.
 */
export class PrefixIndex {
  readonly #maxEntries: number;
  readonly #maxAgeMs: number;
  readonly #shelves: (Shelf | undefined)[] = [];
  readonly #freeNumbers: number[] = [];

  /** Open addressing, at most half full. */
  #table = new Int32Array(2 * firstNodes * placeParts);
  #used = 0;

  #nodes = new Int32Array(firstNodes * nodeParts);
  #firstFree = none;
  #fresh = 0;
  #size = 0;

  /**
   * Of the last `match`: numbers of the instances that have some of the prompt, and how much of it
   * by number.
   */
  readonly holders: number[] = [];
  #cached = new Float64Array(16);

  constructor({ maxEntries, maxAgeMs }: PrefixIndexOptions) {
    this.#maxEntries = maxEntries;
    this.#maxAgeMs = maxAgeMs;
  }

  get size(): number {
    return this.#size;
  }

  /** A number for an instance that has nothing yet. */
  open(capacityBytes: number): number {
    const number = this.#freeNumbers.pop() ?? this.#shelves.length;
    this.#shelves[number] = { newest: none, oldest: none, bytes: 0, capacityBytes };
    if (number >= this.#cached.length) {
      const larger = new Float64Array(2 * this.#cached.length);
      larger.set(this.#cached);
      this.#cached = larger;
    }
    return number;
  }

  /** The instance is gone, with its cache. */
  close(number: number): void {
    if (this.#shelves[number] === undefined) return;
    this.empty(number);
    this.#cached[number] = 0;
    this.#shelves[number] = undefined;
    this.#freeNumbers.push(number);
  }

  /** The instance has lost its cache. */
  empty(number: number): void {
    const shelf = this.#shelves[number];
    while (shelf !== undefined && shelf.oldest !== none) this.#drop(shelf.oldest);
  }

  /** Learns how many bytes of prompts fit into the instance's cache. */
  resize(number: number, capacityBytes: number): void {
    const shelf = this.#shelves[number];
    if (shelf === undefined) return;
    shelf.capacityBytes = capacityBytes;
    this.#trim(shelf);
  }

  /** How many bytes of the prompt of the last `match` the instance has. */
  cached(number: number): number {
    return this.#cached[number] ?? 0;
  }

  /**
   * Finds who has the longest beginnings. The answer is in `holders` and `cached` until the next
   * call.
   */
  match({ count, keys, ends }: Fingerprints): void {
    for (const number of this.holders) this.#cached[number] = 0;
    this.holders.length = 0;
    const nodes = this.#nodes;
    const cached = this.#cached;
    const table = this.#table;
    let visits = 0;
    for (let index = count - 1; index >= 0 && visits < maxVisits; index--) {
      const key = keys[index] as number;
      const place = this.#placeOf(lowOf(key), highOf(key));
      // Who has a longer beginning has this one, too: as many as are found already are the same.
      if (table[place + placeHigh] === 0 || (table[place + placeCount] as number) <= this.holders.length) continue;
      for (
        let node = table[place + placeHead] as number;
        node !== none;
        node = nodes[node * nodeParts + nextOf] as number
      ) {
        visits++;
        const number = nodes[node * nodeParts + shelfOf] as number;
        if (cached[number] !== 0) continue;
        cached[number] = ends[index] as number;
        this.holders.push(number);
      }
    }
  }

  /**
   * The instance was given the prompt at this time (monotonic milliseconds): it has all of its
   * beginnings now.
   */
  place(number: number, { count, keys, ends }: Fingerprints, nowMs: number): void {
    const shelf = this.#shelves[number];
    if (shelf === undefined) return;
    const seconds = Math.floor(nowMs / 1000);
    let held = count - 1;
    let node = none;
    for (; held >= 0 && node === none; held--) node = this.#own(number, keys[held] as number);
    const from = node === none ? 0 : held + 2;
    const bytesAt = (index: number) => (ends[index] as number) - (index === 0 ? 0 : (ends[index - 1] as number));
    if (node !== none && seconds - (this.#nodes[node * nodeParts + usedAtOf] as number) < freshSeconds) {
      // What is longer comes behind it, in the order in which it would fall out.
      for (let index = from; index < count; index++) {
        const part = { key: keys[index] as number, bytes: bytesAt(index), seconds };
        node = this.#add(number, shelf, part, node);
      }
    } else {
      // The longest first, so that the shortest is the most recently used.
      for (let index = count - 1; index >= 0; index--) {
        const part = { key: keys[index] as number, bytes: bytesAt(index), seconds };
        if (index >= from) this.#add(number, shelf, part);
        else this.#use(number, shelf, part);
      }
    }
    this.#trim(shelf);
    this.#expire(shelf, seconds);
  }

  /**
   * Beginnings of the instance from the least recently used on, as `take` takes them: at most
   * `limit` from `skip` on.
   */
  contents(number: number, skip: number, limit: number): { readonly key: number; readonly bytes: number }[] {
    const contents: { key: number; bytes: number }[] = [];
    const nodes = this.#nodes;
    let node = this.#shelves[number]?.oldest ?? none;
    for (let at = 0; node !== none && contents.length < limit; at++) {
      const base = node * nodeParts;
      if (at >= skip) contents.push({ key: this.#keyOf(node), bytes: nodes[base + bytesOf] as number });
      node = nodes[base + newerOf] as number;
    }
    return contents;
  }

  /** Takes over what another index has of an instance, in the order of `contents`. */
  take(number: number, contents: readonly { readonly key: number; readonly bytes: number }[], nowMs: number): void {
    const shelf = this.#shelves[number];
    if (shelf === undefined) return;
    const seconds = Math.floor(nowMs / 1000);
    for (const { key, bytes } of contents) this.#use(number, shelf, { key, bytes, seconds });
    this.#trim(shelf);
  }

  /** The node of an instance for a key. */
  #own(number: number, key: number): number {
    const nodes = this.#nodes;
    let node = this.#head(key);
    while (node !== none && nodes[node * nodeParts + shelfOf] !== number) {
      node = nodes[node * nodeParts + nextOf] as number;
    }
    return node;
  }

  #use(number: number, shelf: Shelf, part: Part): void {
    const node = this.#own(number, part.key);
    if (node === none) {
      this.#add(number, shelf, part);
      return;
    }
    this.#nodes[node * nodeParts + usedAtOf] = part.seconds;
    if (shelf.newest === node) return;
    this.#unlink(node, shelf);
    this.#link(node, shelf);
  }

  /**
   * Adds what the instance does not have; as the most recently used, or just behind a node of its
   * own. Answers the new node.
   */
  #add(number: number, shelf: Shelf, { key, bytes, seconds }: Part, behind = none): number {
    const node = this.#take();
    const base = node * nodeParts;
    const before = this.#setHead(key, node);
    // It may have grown.
    const nodes = this.#nodes;
    // Making room may have taken that one.
    const isBehind = behind !== none && behind !== node && nodes[behind * nodeParts + shelfOf] === number;
    nodes[base + keyLow] = lowOf(key);
    nodes[base + keyHigh] = highOf(key);
    nodes[base + shelfOf] = number;
    nodes[base + bytesOf] = bytes;
    nodes[base + usedAtOf] = seconds;
    nodes[base + nextOf] = before;
    if (isBehind) this.#linkBehind(node, behind, shelf);
    else this.#link(node, shelf);
    shelf.bytes += bytes;
    this.#size++;
    return node;
  }

  #trim(shelf: Shelf): void {
    while (shelf.bytes > shelf.capacityBytes && shelf.oldest !== none) this.#drop(shelf.oldest);
  }

  #expire(shelf: Shelf, seconds: number): void {
    const before = seconds - this.#maxAgeMs / 1000;
    while (shelf.oldest !== none && (this.#nodes[shelf.oldest * nodeParts + usedAtOf] as number) < before)
      this.#drop(shelf.oldest);
  }

  /** A node to fill; when there are as many as may be, the fullest shelf loses its oldest ones. */
  #take(): number {
    if (this.#size >= this.#maxEntries) {
      let fullest: Shelf | undefined;
      for (const shelf of this.#shelves)
        if (shelf !== undefined && shelf.bytes > (fullest?.bytes ?? 0)) fullest = shelf;
      for (
        let left = Math.min(64, this.#maxEntries);
        left > 0 && fullest !== undefined && fullest.oldest !== none;
        left--
      ) {
        this.#drop(fullest.oldest);
      }
    }
    if (this.#firstFree !== none) {
      const node = this.#firstFree;
      this.#firstFree = this.#nodes[node * nodeParts + nextOf] as number;
      return node;
    }
    if (this.#fresh * nodeParts === this.#nodes.length) {
      const larger = new Int32Array(2 * this.#nodes.length);
      larger.set(this.#nodes);
      this.#nodes = larger;
    }
    return this.#fresh++;
  }

  #keyOf(node: number): number {
    const base = node * nodeParts;
    return (this.#nodes[base + keyHigh] as number) * 2 ** 32 + ((this.#nodes[base + keyLow] as number) >>> 0);
  }

  #link(node: number, shelf: Shelf): void {
    const nodes = this.#nodes;
    const base = node * nodeParts;
    nodes[base + olderOf] = shelf.newest;
    nodes[base + newerOf] = none;
    if (shelf.newest !== none) nodes[shelf.newest * nodeParts + newerOf] = node;
    else shelf.oldest = node;
    shelf.newest = node;
  }

  #linkBehind(node: number, newer: number, shelf: Shelf): void {
    const nodes = this.#nodes;
    const base = node * nodeParts;
    const older = nodes[newer * nodeParts + olderOf] as number;
    nodes[base + newerOf] = newer;
    nodes[base + olderOf] = older;
    nodes[newer * nodeParts + olderOf] = node;
    if (older !== none) nodes[older * nodeParts + newerOf] = node;
    else shelf.oldest = node;
  }

  #unlink(node: number, shelf: Shelf): void {
    const nodes = this.#nodes;
    const base = node * nodeParts;
    const newer = nodes[base + newerOf] as number;
    const older = nodes[base + olderOf] as number;
    if (newer !== none) nodes[newer * nodeParts + olderOf] = older;
    else shelf.newest = older;
    if (older !== none) nodes[older * nodeParts + newerOf] = newer;
    else shelf.oldest = newer;
  }

  #drop(node: number): void {
    const nodes = this.#nodes;
    const base = node * nodeParts;
    const shelf = this.#shelves[nodes[base + shelfOf] as number] as Shelf;
    this.#unlink(node, shelf);
    shelf.bytes -= nodes[base + bytesOf] as number;
    const next = nodes[base + nextOf] as number;
    const place = this.#placeOf(nodes[base + keyLow] as number, nodes[base + keyHigh] as number);
    let before = this.#table[place + placeHead] as number;
    if (before === node) {
      if (next === none) this.#removePlace(place);
      else {
        this.#table[place + placeHead] = next;
        this.#table[place + placeCount] = (this.#table[place + placeCount] as number) - 1;
      }
    } else {
      while (nodes[before * nodeParts + nextOf] !== node) before = nodes[before * nodeParts + nextOf] as number;
      nodes[before * nodeParts + nextOf] = next;
      this.#table[place + placeCount] = (this.#table[place + placeCount] as number) - 1;
    }
    nodes[base + shelfOf] = none;
    nodes[base + nextOf] = this.#firstFree;
    this.#firstFree = node;
    this.#size--;
  }

  /** Where the key is in the table, or where it would be. */
  #placeOf(low: number, high: number): number {
    const table = this.#table;
    const mask = table.length / placeParts - 1;
    const taken = high + 1;
    let at = spread(low, high) & mask;
    for (;;) {
      const base = at * placeParts;
      const found = table[base + placeHigh] as number;
      if (found === 0 || (found === taken && table[base + placeLow] === low)) return base;
      at = (at + 1) & mask;
    }
  }

  #head(key: number): number {
    const place = this.#placeOf(lowOf(key), highOf(key));
    return this.#table[place + placeHigh] === 0 ? none : (this.#table[place + placeHead] as number);
  }

  /**
   * Answers the head before; -1: the key is new. Of too many holders of a key, the one that was
   * given it the longest ago is forgotten.
   */
  #setHead(key: number, node: number): number {
    if (2 * this.#used * placeParts >= this.#table.length) this.#growTable();
    const low = lowOf(key);
    const high = highOf(key);
    const place = this.#placeOf(low, high);
    const table = this.#table;
    if (table[place + placeHigh] === 0) {
      this.#used++;
      table[place + placeLow] = low;
      table[place + placeHigh] = high + 1;
      table[place + placeHead] = node;
      table[place + placeCount] = 1;
      return none;
    }
    // Others are left, so that the key keeps its place.
    if ((table[place + placeCount] as number) >= maxHolders)
      this.#drop(this.#lastFrom(table[place + placeHead] as number));
    const before = table[place + placeHead] as number;
    table[place + placeHead] = node;
    table[place + placeCount] = (table[place + placeCount] as number) + 1;
    return before;
  }

  #lastFrom(node: number): number {
    let last = node;
    for (let next = node; next !== none; next = this.#nodes[next * nodeParts + nextOf] as number) last = next;
    return last;
  }

  /** Those behind it move up, so that no search ends too early. */
  #removePlace(place: number): void {
    const table = this.#table;
    const mask = table.length / placeParts - 1;
    this.#used--;
    let hole = place / placeParts;
    for (let at = (hole + 1) & mask; table[at * placeParts + placeHigh] !== 0; at = (at + 1) & mask) {
      const base = at * placeParts;
      const low = table[base + placeLow] as number;
      const high = table[base + placeHigh] as number;
      const home = spread(low, high - 1) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      const to = hole * placeParts;
      table[to + placeLow] = low;
      table[to + placeHigh] = high;
      table[to + placeHead] = table[base + placeHead] as number;
      table[to + placeCount] = table[base + placeCount] as number;
      hole = at;
    }
    table[hole * placeParts + placeHigh] = 0;
  }

  #growTable(): void {
    const old = this.#table;
    this.#table = new Int32Array(2 * old.length);
    for (let base = 0; base < old.length; base += placeParts) {
      const high = old[base + placeHigh] as number;
      if (high === 0) continue;
      const low = old[base + placeLow] as number;
      const place = this.#placeOf(low, high - 1);
      this.#table[place + placeLow] = low;
      this.#table[place + placeHigh] = high;
      this.#table[place + placeHead] = old[base + placeHead] as number;
      this.#table[place + placeCount] = old[base + placeCount] as number;
    }
  }
}

function lowOf(key: number): number {
  return (key % 2 ** 32) | 0;
}

function highOf(key: number): number {
  return Math.floor(key / 2 ** 32);
}

/** Keys are hashes, but a sender may choose them. */
function spread(low: number, high: number): number {
  const mixed = Math.imul(low ^ high, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
