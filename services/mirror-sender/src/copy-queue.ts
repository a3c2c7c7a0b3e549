/** Something to be done that takes memory until it is done. */
export interface Sized {
  readonly bytes: number;
}

export interface QueueLimits {
  readonly maxConcurrency: number;
  readonly maxWaiting: number;
  /** Over all that wait and all that are being worked on. */
  readonly maxHeldBytes: number;
}

/** First come, first served; bounded in every way. */
export class CopyQueue<Item extends Sized> {
  readonly #limits: QueueLimits;
  readonly #work: (item: Item) => Promise<void>;
  readonly #waiting: Item[] = [];
  inFlight = 0;
  heldBytes = 0;

  /** @param work must not reject */
  constructor(limits: QueueLimits, work: (item: Item) => Promise<void>) {
    this.#limits = limits;
    this.#work = work;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get idle(): boolean {
    return this.inFlight === 0 && this.#waiting.length === 0;
  }

  /** False: no room, and nothing of it is kept. */
  offer(item: Item): boolean {
    const { maxConcurrency, maxWaiting, maxHeldBytes } = this.#limits;
    if (this.heldBytes + item.bytes > maxHeldBytes) return false;
    const begins = this.inFlight < maxConcurrency;
    if (!begins && this.#waiting.length >= maxWaiting) return false;
    this.heldBytes += item.bytes;
    if (begins) this.#begin(item);
    else this.#waiting.push(item);
    return true;
  }

  #begin(item: Item): void {
    this.inFlight++;
    void this.#work(item).finally(() => {
      this.inFlight--;
      this.heldBytes -= item.bytes;
      const next = this.#waiting.shift();
      if (next !== undefined) this.#begin(next);
    });
  }
}
