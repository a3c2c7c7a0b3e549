export interface WorkLimits {
  /** Pieces of work that are done at a time. */
  readonly maxWorking: number;
  /** Pieces that are held besides. */
  readonly maxWaiting: number;
  /** Over all pieces that are held. */
  readonly maxHeldBytes: number;
}

/**
 * The work that a process takes on, bounded in pieces and in bytes. A piece has a slot from `take`
 * to `release`; to be done it needs a turn, and turns are given in the order of asking. A piece may
 * wait for something else before it asks for its turn, so while nothing is being done as many may
 * wait as there are slots in all.
 */
export class WorkQueue {
  readonly #limits: WorkLimits;
  readonly #onChange: () => void;
  readonly #turns: (() => void)[] = [];
  #held = 0;
  #working = 0;
  #heldBytes = 0;

  /** @param onChange called when there may be room where there was none, or the other way round */
  constructor(limits: WorkLimits, onChange: () => void = () => {}) {
    this.#limits = limits;
    this.#onChange = onChange;
  }

  /** Whether another piece fits, of whatever size. */
  get room(): boolean {
    return this.#held < this.#limits.maxWaiting + this.#limits.maxWorking;
  }

  get waiting(): number {
    return this.#held - this.#working;
  }

  get working(): number {
    return this.#working;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get idle(): boolean {
    return this.#held === 0;
  }

  /** A slot for a piece of so many bytes; null when there is none, and nothing of it is kept. */
  take(bytes: number): WorkSlot | null {
    if (!this.room || this.#heldBytes + bytes > this.#limits.maxHeldBytes) return null;
    this.#held++;
    this.#heldBytes += bytes;
    this.#onChange();
    return new WorkSlot(this, bytes);
  }

  /** For `WorkSlot` only, as what follows. */
  free(bytes: number): void {
    this.#held--;
    this.#heldBytes -= bytes;
    this.#onChange();
  }

  /** Takes a turn, or queues for it; the function given back leaves the queue. */
  takeTurn(begin: () => void): () => void {
    if (this.#working < this.#limits.maxWorking) {
      this.#working++;
      begin();
      return () => {};
    }
    this.#turns.push(begin);
    return () => {
      const at = this.#turns.indexOf(begin);
      if (at >= 0) this.#turns.splice(at, 1);
    };
  }

  endTurn(): void {
    const next = this.#turns.shift();
    if (next === undefined) this.#working--;
    else next();
  }
}

/** The slot of one piece of work, from when it was taken on to its end. */
export class WorkSlot {
  readonly #queue: WorkQueue;
  readonly #bytes: number;
  #working = false;
  #open = true;

  constructor(queue: WorkQueue, bytes: number) {
    this.#queue = queue;
    this.#bytes = bytes;
  }

  /** Calls `begin` when it is its turn. The function given back asks no longer. */
  onTurn(begin: () => void): () => void {
    return this.#queue.takeTurn(() => {
      this.#working = true;
      begin();
    });
  }

  /**
   * Waits for its turn. False when that did not come within `timeoutMs`. Throws the signal's reason
   * when it aborts first.
   */
  turn(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
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
      leave = this.onTurn(() => {
        settle();
        resolve(true);
      });
    });
  }

  /** Its turn is over; the slot stays. Without a turn, does nothing. */
  endTurn(): void {
    if (!this.#working) return;
    this.#working = false;
    this.#queue.endTurn();
  }

  /** The piece is done with; doing it twice does nothing. */
  release(): void {
    if (!this.#open) return;
    this.#open = false;
    this.endTurn();
    this.#queue.free(this.#bytes);
  }
}
