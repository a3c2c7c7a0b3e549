/** The same line is not logged again sooner. */
const repeatAfterMs = 60_000;
/**
 * Reasons that differ are few; what makes more of them (a number that always differs) must not fill
 * the memory or the log.
 */
const maxReasons = 32;
const maxReasonLength = 1000;

interface Reported {
  readonly atMs: number;
  leftOut: number;
}

/**
 * Says why something fails that is tried again and again: each new reason at once, the same one at
 * most once a minute with the count of those that were left out since (`leftOut`), none with a
 * stack.
 */
export class Reasons {
  readonly #log: (fields: object, message: string) => void;
  readonly #nowMs: () => number;
  /** By message and reason, the one logged longest ago first. */
  readonly #reported = new Map<string, Reported>();
  #isTold = false;

  constructor(log: (fields: object, message: string) => void, nowMs: () => number = () => performance.now()) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  /** Logs `message` with `fields` and the error's text as `cause`, or counts it. */
  report(error: Error, message: string, fields: object = {}): void {
    const reason = error.message.slice(0, maxReasonLength);
    // Ports, addresses and durations do not make a reason new.
    const key = `${message} ${reason.replaceAll(/\d+/g, '#')}`;
    const nowMs = this.#nowMs();
    const last = this.#reported.get(key);
    if (last && nowMs - last.atMs < repeatAfterMs) {
      last.leftOut++;
      return;
    }
    this.#reported.delete(key);
    if (!this.#makeRoom(nowMs)) return;
    this.#reported.set(key, { atMs: nowMs, leftOut: 0 });
    this.#isTold = true;
    this.#log({ ...fields, cause: reason, ...(last && last.leftOut > 0 && { leftOut: last.leftOut }) }, message);
  }

  /**
   * It works again. Whether a reason was logged since the last time: only then is the end of the
   * trouble worth a line.
   */
  end(): boolean {
    const wasTold = this.#isTold;
    this.#isTold = false;
    return wasTold;
  }

  #makeRoom(nowMs: number): boolean {
    const [oldest] = this.#reported;
    if (!oldest || this.#reported.size < maxReasons) return true;
    if (nowMs - oldest[1].atMs < repeatAfterMs) return false;
    return this.#reported.delete(oldest[0]);
  }
}
