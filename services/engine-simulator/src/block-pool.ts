/** The blocks that one request holds. */
export interface Holding {
  /** Keys of blocks that others may hold as well. */
  readonly shared: number[];
  /** Private blocks, whose content no other request can use. */
  own: number;
}

/**
 * The KV cache of an engine: a fixed number of blocks, each free, held, or kept for those who come
 * with the same prompt. Kept ones give way when room is needed, the one first that was not used for
 * longest.
 */
export class BlockPool {
  readonly capacity: number;
  /** How many hold each block that has a key. */
  readonly #holders = new Map<number, number>();
  /** Unused keys, the next one to evict first. */
  readonly #kept = new Set<number>();
  #own = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** Blocks that are held; the others are free or can be. */
  get held(): number {
    return this.#own + this.#holders.size - this.#kept.size;
  }

  /** How many of the first keys have their blocks here. */
  hits(keys: readonly number[]): number {
    const missing = keys.findIndex((key) => !this.#holders.has(key));
    return missing < 0 ? keys.length : missing;
  }

  /**
   * Holds the blocks of keys that are here, and `own` others; undefined when there is no room, and
   * nothing is held.
   */
  take(keys: readonly number[], own: number): Holding | undefined {
    const kept = keys.filter((key) => this.#kept.has(key)).length;
    if (this.held + kept + own > this.capacity) return undefined;
    for (const key of keys) this.#hold(key);
    const holding: Holding = { shared: [...keys], own: 0 };
    for (let block = 0; block < own; block += 1) this.grow(holding);
    return holding;
  }

  /** One block more; false when there is none. */
  grow(holding: Holding): boolean {
    if (this.held >= this.capacity) return false;
    if (this.#own + this.#holders.size >= this.capacity) this.#evict();
    this.#own += 1;
    holding.own += 1;
    return true;
  }

  /** Own blocks of a holding now have the content of these keys, so that others can share them. */
  share(holding: Holding, keys: readonly number[]): void {
    for (const key of keys) {
      // Two computed the same at once: one of them is shared.
      if (this.#holders.has(key)) continue;
      holding.own -= 1;
      this.#own -= 1;
      this.#holders.set(key, 1);
      holding.shared.push(key);
    }
  }

  release(holding: Holding): void {
    this.#own -= holding.own;
    holding.own = 0;
    // The last first: a block is of no use without those before it.
    for (const key of holding.shared.splice(0).reverse()) {
      const others = (this.#holders.get(key) ?? 1) - 1;
      this.#holders.set(key, others);
      if (others === 0) this.#kept.add(key);
    }
  }

  #hold(key: number): void {
    this.#holders.set(key, (this.#holders.get(key) ?? 0) + 1);
    this.#kept.delete(key);
  }

  #evict(): void {
    const [oldest] = this.#kept;
    if (oldest === undefined) return;
    this.#kept.delete(oldest);
    this.#holders.delete(oldest);
  }
}
