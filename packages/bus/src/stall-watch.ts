import { eachSecond } from './each-second.ts';

const stallMs = 2_000;
const latelyMs = 10_000;

/**
 * Notices when this process did not get to read for seconds. A NATS server cuts off a client that
 * does not read (10 s by default) and cannot tell it why: from here it looks like any lost
 * connection.
 */
export class StallWatch implements Disposable {
  #lookedMs = performance.now();
  #stalledMs = Number.NEGATIVE_INFINITY;
  readonly #looks = eachSecond(() => this.#look());

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
    this.#looks[Symbol.dispose]();
  }
}
