import { Refusal } from './refusal.ts';

/**
 * The places of one rank: so many requests are computed at once, so many wait in order, the rest is
 * refused.
 */
export class Slots {
  readonly #capacity: number;
  readonly #queueLimit: number;
  readonly #queue = new Set<() => void>();
  #running = 0;

  constructor(capacity: number, queueLimit: number) {
    this.#capacity = capacity;
    this.#queueLimit = queueLimit;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /**
   * Throws the `Refusal` that `acquire` would throw now: for those who must know it before they
   * begin their answer.
   */
  requireRoom(): void {
    const isFull = this.#running >= this.#capacity && this.#queue.size >= this.#queueLimit;
    if (isFull) throw new Refusal(503, 'The request queue is full.');
  }

  /**
   * Resolves with a slot to dispose. Throws a `Refusal` with status 503 when the queue is full, the
   * signal's reason when it aborts first: the place in the queue is free at once.
   */
  async acquire(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    this.requireRoom();
    if (this.#running >= this.#capacity) await this.#wait(signal);
    else this.#running += 1;
    return this.#slot();
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = () => {
      this.#queue.delete(resolve);
      reject(signal.reason);
    };
    this.#queue.add(resolve);
    signal.addEventListener('abort', leave, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  #slot(): Disposable {
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const [next] = this.#queue;
        if (next) {
          // The slot goes on to the next in the queue without having been free: nobody can come in
          // between.
          this.#queue.delete(next);
          next();
        } else this.#running -= 1;
      },
    };
  }
}
