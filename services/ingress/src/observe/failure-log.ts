import type { Logger } from '@llm-gateway/runtime';
import type { AttemptRecord } from '../exchange/request-record.ts';

/** Maximum instances and endpoints to track; the most recently failed ones are kept. */
const maxTargets = 1000;
/** Warnings of all targets together: a network that is down must not fill the log. */
const maxWarnings = 10;
const windowMs = 10_000;

/**
 * Warns of the first failure of each instance or endpoint after a success, with its cause. What
 * follows is counted only.
 */
export class FailureLog {
  readonly #log: Pick<Logger, 'warn'>;
  readonly #now: () => number;
  /** Targets whose last call failed. */
  readonly #failing = new Set<string>();
  #windowAtMs = Number.NEGATIVE_INFINITY;
  #warnings = 0;
  #leftOut = 0;

  /** @param now monotonic milliseconds */
  constructor(log: Pick<Logger, 'warn'>, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  ended({ target, kind, cause }: AttemptRecord): void {
    if (kind === 'answered') {
      this.#failing.delete(target);
      return;
    }
    if (kind === 'cancelled' || this.#failing.has(target)) return;
    const oldest = this.#failing.size >= maxTargets ? this.#failing.values().next().value : undefined;
    if (oldest !== undefined) this.#failing.delete(oldest);
    this.#failing.add(target);
    this.#warn(target, cause);
  }

  #warn(target: string, cause: string): void {
    const now = this.#now();
    if (now - this.#windowAtMs >= windowMs) {
      this.#windowAtMs = now;
      this.#warnings = 0;
    }
    if (this.#warnings >= maxWarnings) {
      this.#leftOut++;
      return;
    }
    this.#warnings++;
    const leftOut = this.#leftOut > 0 ? { leftOut: this.#leftOut } : {};
    this.#leftOut = 0;
    this.#log.warn({ target, cause, ...leftOut }, 'upstream call failed; further failures of it are only counted');
  }
}
