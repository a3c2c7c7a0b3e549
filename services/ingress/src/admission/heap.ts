/** One item of a heap, by which it is moved and removed. */
export interface HeapEntry<T> {
  readonly item: T;
  rank: number;
  /** Of equal ranks the older entry comes first. */
  readonly age: number;
  /** Its place in the heap; -1 once it is out of it. */
  at: number;
}

/**
 * A binary heap whose entries may change their rank: the lowest comes first. All that changes it
 * takes O(log n).
 */
export class Heap<T> {
  readonly #entries: HeapEntry<T>[] = [];
  #ages = 0;

  get size(): number {
    return this.#entries.length;
  }

  get first(): T | undefined {
    return this.#entries[0]?.item;
  }

  add(item: T, rank: number): HeapEntry<T> {
    const entry = { item, rank, age: this.#ages++, at: this.#entries.length };
    this.#entries.push(entry);
    this.#rise(entry);
    return entry;
  }

  move(entry: HeapEntry<T>, rank: number): void {
    if (entry.at === -1) return;
    entry.rank = rank;
    this.#rise(entry);
    this.#sink(entry);
  }

  remove(entry: HeapEntry<T>): void {
    const { at } = entry;
    if (at === -1) return;
    entry.at = -1;
    const last = this.#entries.pop();
    if (last === undefined || last === entry) return;
    this.#put(last, at);
    this.#rise(last);
    this.#sink(last);
  }

  #rise(entry: HeapEntry<T>): void {
    while (entry.at > 0) {
      const above = this.#entries[(entry.at - 1) >> 1];
      if (above === undefined || isBefore(above, entry)) return;
      this.#swap(above, entry);
    }
  }

  #sink(entry: HeapEntry<T>): void {
    for (;;) {
      const left = this.#entries[2 * entry.at + 1];
      const right = this.#entries[2 * entry.at + 2];
      if (left === undefined) return;
      const below = right !== undefined && isBefore(right, left) ? right : left;
      if (isBefore(entry, below)) return;
      this.#swap(entry, below);
    }
  }

  #swap(one: HeapEntry<T>, other: HeapEntry<T>): void {
    const { at } = one;
    this.#put(one, other.at);
    this.#put(other, at);
  }

  #put(entry: HeapEntry<T>, at: number): void {
    this.#entries[at] = entry;
    entry.at = at;
  }
}

function isBefore<T>(one: HeapEntry<T>, other: HeapEntry<T>): boolean {
  return one.rank < other.rank || (one.rank === other.rank && one.age < other.age);
}
