export interface PlaceLimits {
  readonly queueSize: number;
  readonly workerSize: number;
  readonly maxHeldBytes: number;
}

/**
 * How much one process takes on: `queueSize` jobs beside `workerSize` that call, and their bodies.
 * A job in backoff only waits, so while nobody calls as many may wait as there are places in all; a
 * slot to call with is taken for each call and given back after it.
 */
export class Places {
  readonly #limits: PlaceLimits;
  readonly #onChange: () => void;
  readonly #turns: (() => void)[] = [];
  #held = 0;
  #calling = 0;
  #heldBytes = 0;

  /** @param onChange called when there may be room where there was none, or the other way round */
  constructor(limits: PlaceLimits, onChange: () => void) {
    this.#limits = limits;
    this.#onChange = onChange;
  }

  /** Whether another job fits, of whatever size. */
  get room(): boolean {
    return this.#held < this.#limits.queueSize + this.#limits.workerSize;
  }

  get waiting(): number {
    return this.#held - this.#calling;
  }

  get calling(): number {
    return this.#calling;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** A place for a job with a body of so many bytes; null when there is none. */
  take(bytes: number): Place | null {
    if (!this.room || this.#heldBytes + bytes > this.#limits.maxHeldBytes) return null;
    this.#held++;
    this.#heldBytes += bytes;
    this.#onChange();
    return new Place(this, bytes);
  }

  /** For `Place` only, as what follows. */
  free(bytes: number): void {
    this.#held--;
    this.#heldBytes -= bytes;
    this.#onChange();
  }

  /** Takes a slot, or queues for it; the function given back leaves the queue. */
  takeSlot(begin: () => void): () => void {
    if (this.#calling < this.#limits.workerSize) {
      this.#calling++;
      begin();
      return () => {};
    }
    this.#turns.push(begin);
    return () => {
      const at = this.#turns.indexOf(begin);
      if (at >= 0) this.#turns.splice(at, 1);
    };
  }

  freeSlot(): void {
    const next = this.#turns.shift();
    if (next === undefined) this.#calling--;
    else next();
  }
}

/** The place of one job, from its acceptance to its end. */
export class Place {
  readonly #places: Places;
  readonly #bytes: number;
  #calling = false;
  #open = true;

  constructor(places: Places, bytes: number) {
    this.#places = places;
    this.#bytes = bytes;
  }

  /**
   * Takes a slot to call with, in the order of asking. False when none was free for `timeoutMs`.
   * Throws the signal's reason when it aborts first.
   */
  beginCall(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      let leave: (() => void) | undefined;
      const settle = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        leave?.();
      };
      const onAbort = () => {
        settle();
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        settle();
        resolve(false);
      }, timeoutMs);
      signal.addEventListener('abort', onAbort);
      leave = this.#places.takeSlot(() => {
        this.#calling = true;
        settle();
        resolve(true);
      });
    });
  }

  endCall(): void {
    if (!this.#calling) return;
    this.#calling = false;
    this.#places.freeSlot();
  }

  /** Gives the place back; doing it twice does nothing. */
  release(): void {
    if (!this.#open) return;
    this.#open = false;
    this.endCall();
    this.#places.free(this.#bytes);
  }
}
