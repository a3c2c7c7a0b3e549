export interface SlotLimits {
  readonly queueSize: number;
  readonly workerSize: number;
  readonly maxHeldBytes: number;
}

/**
 * How much one process takes on: `queueSize` jobs beside `workerSize` that call, and their bodies.
 * A job in backoff only waits, so while nobody calls as many may wait as there are slots in all; a
 * turn to call is taken for each call and given back after it.
 */
export class JobSlots {
  readonly #limits: SlotLimits;
  readonly #onChange: () => void;
  readonly #turns: (() => void)[] = [];
  #held = 0;
  #calling = 0;
  #heldBytes = 0;

  /** @param onChange called when there may be room where there was none, or the other way round */
  constructor(limits: SlotLimits, onChange: () => void) {
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

  /** A slot for a job with a body of so many bytes; null when there is none. */
  take(bytes: number): JobSlot | null {
    if (!this.room || this.#heldBytes + bytes > this.#limits.maxHeldBytes) return null;
    this.#held++;
    this.#heldBytes += bytes;
    this.#onChange();
    return new JobSlot(this, bytes);
  }

  /** For `JobSlot` only, as what follows. */
  free(bytes: number): void {
    this.#held--;
    this.#heldBytes -= bytes;
    this.#onChange();
  }

  /** Takes a turn to call, or queues for it; the function given back leaves the queue. */
  takeTurn(begin: () => void): () => void {
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

  freeTurn(): void {
    const next = this.#turns.shift();
    if (next === undefined) this.#calling--;
    else next();
  }
}

/** The slot of one job, from its acceptance to its end. */
export class JobSlot {
  readonly #slots: JobSlots;
  readonly #bytes: number;
  #calling = false;
  #open = true;

  constructor(slots: JobSlots, bytes: number) {
    this.#slots = slots;
    this.#bytes = bytes;
  }

  /**
   * Takes a turn to call, in the order of asking. False when none was free for `timeoutMs`.
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
      leave = this.#slots.takeTurn(() => {
        this.#calling = true;
        settle();
        resolve(true);
      });
    });
  }

  endCall(): void {
    if (!this.#calling) return;
    this.#calling = false;
    this.#slots.freeTurn();
  }

  /** Gives the slot back; doing it twice does nothing. */
  release(): void {
    if (!this.#open) return;
    this.#open = false;
    this.endCall();
    this.#slots.free(this.#bytes);
  }
}
