import type { Fingerprints } from '@llm-gateway/protocol';

/** Beyond so many instances that hold one beginning, the one that was given it the longest ago is forgotten for it. */
const maxHolders = 128;
/** So many holders are looked at for one prompt, the longest beginnings first: what is left counts as not cached. */
const maxVisits = 2048;
const firstNodes = 1024;
const none = -1;

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

/**
 * Which instance was given which beginnings of prompts, and so may still have them in its KV cache. Instances are small numbers, made by `open`. Each
 * has a shelf that holds as many bytes as its cache: what was used the longest ago falls out first, the ends of prompts before their beginnings.
 *
 * Everything lies in arrays of numbers: a node for each beginning of each instance, and a hash table from a fingerprint to its first node.
 */
export class PrefixIndex {
  readonly #maxEntries: number;
  readonly #maxAgeMs: number;
  readonly #shelves: (Shelf | undefined)[] = [];
  readonly #freeNumbers: number[] = [];

  /** Open addressing; a key of 0 is an empty place. */
  #tableKeys = new Float64Array(2 * firstNodes);
  #tableHeads = new Int32Array(2 * firstNodes);
  #used = 0;

  #key = new Float64Array(firstNodes);
  #shelf = new Int32Array(firstNodes);
  /** The next holder of the same key; of a free node the next free one. */
  #next = new Int32Array(firstNodes);
  #newer = new Int32Array(firstNodes);
  #older = new Int32Array(firstNodes);
  #bytes = new Int32Array(firstNodes);
  /** Seconds. */
  #usedAt = new Int32Array(firstNodes);
  #firstFree = none;
  #fresh = 0;
  #size = 0;

  /** Of the last `match`: numbers of the instances that have some of the prompt, and how much of it by number. */
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
    if (number >= this.#cached.length) this.#cached = grown(this.#cached, 2 * this.#cached.length);
    return number;
  }

  /** The instance is gone, with what it held. */
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

  bytesOf(number: number): number {
    return this.#shelves[number]?.bytes ?? 0;
  }

  /** How many bytes of the prompt of the last `match` the instance has. */
  cached(number: number): number {
    return this.#cached[number] ?? 0;
  }

  /** Finds who has the longest beginnings. The answer is in `holders` and `cached` until the next call. */
  match({ count, keys, ends }: Fingerprints): void {
    for (const number of this.holders) this.#cached[number] = 0;
    this.holders.length = 0;
    let visits = 0;
    for (let index = count - 1; index >= 0 && visits < maxVisits; index--) {
      for (let node = this.#head(keys[index] as number); node !== none; node = this.#next[node] as number) {
        visits++;
        const number = this.#shelf[node] as number;
        if (this.#cached[number] !== 0) continue;
        this.#cached[number] = ends[index] as number;
        this.holders.push(number);
      }
    }
  }

  /** The instance was given the prompt at this time (monotonic milliseconds): it has all of its beginnings now. */
  place(number: number, { count, keys, ends }: Fingerprints, nowMs: number): void {
    const shelf = this.#shelves[number];
    if (shelf === undefined) return;
    const seconds = Math.floor(nowMs / 1000);
    // The longest first, so that the shortest is the most recently used.
    for (let index = count - 1; index >= 0; index--) {
      const bytes = (ends[index] as number) - (index === 0 ? 0 : (ends[index - 1] as number));
      this.#use(number, shelf, { key: keys[index] as number, bytes, seconds });
    }
    this.#trim(shelf);
    this.#expire(shelf, seconds);
  }

  /** Beginnings of the instance from the least recently used on, as `take` takes them: at most `limit` from `skip` on. */
  contents(number: number, skip: number, limit: number): { readonly key: number; readonly bytes: number }[] {
    const contents: { key: number; bytes: number }[] = [];
    let node = this.#shelves[number]?.oldest ?? none;
    for (let at = 0; node !== none && contents.length < limit; at++, node = this.#newer[node] as number) {
      if (at >= skip) contents.push({ key: this.#key[node] as number, bytes: this.#bytes[node] as number });
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

  #use(
    number: number,
    shelf: Shelf,
    { key, bytes, seconds }: { readonly key: number; readonly bytes: number; readonly seconds: number },
  ): void {
    let holders = 0;
    let last = none;
    for (let node = this.#head(key); node !== none; node = this.#next[node] as number) {
      if (this.#shelf[node] === number) {
        this.#usedAt[node] = seconds;
        if (shelf.newest === node) return;
        this.#unlink(node, shelf);
        this.#link(node, shelf);
        return;
      }
      holders++;
      last = node;
    }
    if (holders >= maxHolders) this.#drop(last);
    const node = this.#take();
    this.#key[node] = key;
    this.#shelf[node] = number;
    this.#bytes[node] = bytes;
    this.#usedAt[node] = seconds;
    this.#next[node] = this.#setHead(key, node);
    this.#link(node, shelf);
    shelf.bytes += bytes;
    this.#size++;
  }

  #trim(shelf: Shelf): void {
    while (shelf.bytes > shelf.capacityBytes && shelf.oldest !== none) this.#drop(shelf.oldest);
  }

  #expire(shelf: Shelf, seconds: number): void {
    const before = seconds - this.#maxAgeMs / 1000;
    while (shelf.oldest !== none && (this.#usedAt[shelf.oldest] as number) < before) this.#drop(shelf.oldest);
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
      this.#firstFree = this.#next[node] as number;
      return node;
    }
    if (this.#fresh === this.#key.length) this.#growNodes();
    return this.#fresh++;
  }

  #growNodes(): void {
    const length = 2 * this.#key.length;
    this.#key = grown(this.#key, length);
    this.#shelf = grown(this.#shelf, length);
    this.#next = grown(this.#next, length);
    this.#newer = grown(this.#newer, length);
    this.#older = grown(this.#older, length);
    this.#bytes = grown(this.#bytes, length);
    this.#usedAt = grown(this.#usedAt, length);
  }

  #link(node: number, shelf: Shelf): void {
    this.#older[node] = shelf.newest;
    this.#newer[node] = none;
    if (shelf.newest !== none) this.#newer[shelf.newest] = node;
    else shelf.oldest = node;
    shelf.newest = node;
  }

  #unlink(node: number, shelf: Shelf): void {
    const newer = this.#newer[node] as number;
    const older = this.#older[node] as number;
    if (newer !== none) this.#older[newer] = older;
    else shelf.newest = older;
    if (older !== none) this.#newer[older] = newer;
    else shelf.oldest = newer;
  }

  #drop(node: number): void {
    const shelf = this.#shelves[this.#shelf[node] as number] as Shelf;
    this.#unlink(node, shelf);
    shelf.bytes -= this.#bytes[node] as number;
    const key = this.#key[node] as number;
    const next = this.#next[node] as number;
    let before = this.#head(key);
    if (before === node) {
      if (next === none) this.#removeKey(key);
      else this.#setHead(key, next);
    } else {
      while (this.#next[before] !== node) before = this.#next[before] as number;
      this.#next[before] = next;
    }
    this.#next[node] = this.#firstFree;
    this.#firstFree = node;
    this.#size--;
  }

  #place(key: number): number {
    const mask = this.#tableKeys.length - 1;
    let at = spread(key) & mask;
    for (let found = this.#tableKeys[at]; found !== 0 && found !== key; found = this.#tableKeys[at])
      at = (at + 1) & mask;
    return at;
  }

  #head(key: number): number {
    const at = this.#place(key);
    return this.#tableKeys[at] === 0 ? none : (this.#tableHeads[at] as number);
  }

  /** Answers the head before; -1: the key is new. */
  #setHead(key: number, node: number): number {
    if (2 * this.#used >= this.#tableKeys.length) this.#growTable();
    const at = this.#place(key);
    const isNew = this.#tableKeys[at] === 0;
    const before = isNew ? none : (this.#tableHeads[at] as number);
    if (isNew) this.#used++;
    this.#tableKeys[at] = key;
    this.#tableHeads[at] = node;
    return before;
  }

  /** Those behind it move up, so that no search ends too early. */
  #removeKey(key: number): void {
    const mask = this.#tableKeys.length - 1;
    let hole = this.#place(key);
    this.#used--;
    for (let at = (hole + 1) & mask; this.#tableKeys[at] !== 0; at = (at + 1) & mask) {
      const home = spread(this.#tableKeys[at] as number) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#tableKeys[hole] = this.#tableKeys[at] as number;
      this.#tableHeads[hole] = this.#tableHeads[at] as number;
      hole = at;
    }
    this.#tableKeys[hole] = 0;
  }

  #growTable(): void {
    const keys = this.#tableKeys;
    const heads = this.#tableHeads;
    this.#tableKeys = new Float64Array(2 * keys.length);
    this.#tableHeads = new Int32Array(2 * keys.length);
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at] as number;
      if (key === 0) continue;
      const place = this.#place(key);
      this.#tableKeys[place] = key;
      this.#tableHeads[place] = heads[at] as number;
    }
  }
}

/** Keys are hashes, but whoever sends them may choose them. */
function spread(key: number): number {
  const mixed = Math.imul(((key % 2 ** 32) >>> 0) ^ Math.floor(key / 2 ** 32), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

function grown<A extends Float64Array | Int32Array>(array: A, length: number): A {
  const larger = new (array.constructor as new (length: number) => A)(length);
  larger.set(array);
  return larger;
}
