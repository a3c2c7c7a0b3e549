/** The last so many of something, the oldest first. */
export class Ring<Item> {
  readonly #capacity: number;
  #items: Item[] = [];
  #start = 0;
  /** How many there were in all. */
  total = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  push(item: Item): void {
    this.total++;
    if (this.#items.length < this.#capacity) {
      this.#items.push(item);
      return;
    }
    this.#items[this.#start] = item;
    this.#start = (this.#start + 1) % this.#capacity;
  }

  /** From the newest to the oldest, until `visit` returns false. */
  backwards(visit: (item: Item) => boolean | undefined): void {
    const { length } = this.#items;
    for (let back = 1; back <= length; back++) {
      const item = this.#items[(this.#start + length - back) % length];
      if (item !== undefined && visit(item) === false) return;
    }
  }
}
