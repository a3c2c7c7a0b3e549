import { setTimeout as sleep } from 'node:timers/promises';

/**
 * First and longest wait before a store is tried again; short, for a store that is back should be
 * used at once.
 */
const initialMs = 100;
const maxMs = 1000;

/**
 * The wait before try `failures` + 1: doubles up to a second, and is anything from half of that on,
 * so that many do not come back at once.
 */
export function retryDelayMs(failures: number, random: () => number): number {
  const full = Math.min(initialMs * 2 ** Math.max(0, failures - 1), maxMs);
  return full * (0.5 + random() / 2);
}

/** A wait that can be ended early. One waiter at a time. */
export class Pause {
  #rung = false;
  #abort: AbortController | null = null;

  /** Ends the current wait, or else the next one. */
  ring(): void {
    this.#rung = true;
    this.#abort?.abort();
  }

  async wait(timeoutMs: number): Promise<void> {
    if (!this.#rung) {
      this.#abort = new AbortController();
      // setTimeout takes 31 bits.
      await sleep(Math.min(timeoutMs, 2 ** 31 - 1), undefined, { signal: this.#abort.signal }).catch(() => undefined);
      this.#abort = null;
    }
    this.#rung = false;
  }
}
