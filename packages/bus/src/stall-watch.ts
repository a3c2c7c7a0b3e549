const lookMs = 1_000;
const stallMs = 2_000;
const latelyMs = 10_000;

/**
 * Notices when this process did not get to read for seconds. A NATS server cuts off a client that does not read (10 s by default)
 * and cannot tell it why: from here it looks like any lost connection.
 */
export class StallWatch implements Disposable {
  #lookedMs = performance.now();
  #stalledMs = Number.NEGATIVE_INFINITY;
  readonly #timer: NodeJS.Timeout;

  constructor() {
    this.#timer = setInterval(() => this.#look(), lookMs);
    this.#timer.unref();
  }

  stalledLately(): boolean {
    this.#look();
    return performance.now() - this.#stalledMs < latelyMs;
  }

  #look(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lookedMs > stallMs) this.#stalledMs = nowMs;
    this.#lookedMs = nowMs;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
