const sweepIntervalMs = 1000;

/** Something that waits for its client to take what it is sent. */
export interface Stalled {
  readonly stalledSinceMs: number;
  giveUp(): void;
}

/** Gives up on clients that stopped taking their answers: one timer for all of them, and none while a client keeps up. */
export class StallWatch implements Disposable {
  readonly #limitMs: number;
  readonly #stalled = new Set<Stalled>();
  readonly #timer: NodeJS.Timeout;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
    this.#timer = setInterval(() => this.#sweep(), Math.min(sweepIntervalMs, limitMs)).unref();
  }

  begin(stalled: Stalled): void {
    this.#stalled.add(stalled);
  }

  end(stalled: Stalled): void {
    this.#stalled.delete(stalled);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #sweep(): void {
    const oldest = performance.now() - this.#limitMs;
    for (const stalled of this.#stalled) {
      if (stalled.stalledSinceMs > oldest) continue;
      this.#stalled.delete(stalled);
      stalled.giveUp();
    }
  }
}
