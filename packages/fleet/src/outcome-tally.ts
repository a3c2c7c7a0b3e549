import type { OutcomeReport } from '@llm-gateway/protocol';
import { Refusals } from './refusals.ts';

/**
 * How one call to an instance ended: answered, failed (connection, 5xx), alive but wanting less
 * (429, 503), or refused (401, 403, 404), which is the client's mistake or the instance's.
 */
export type Outcome = 'succeeded' | 'failed' | 'busy' | 'refused';

/** The call that ended. */
export interface Call {
  readonly instance: string;
  /** What requests have in common that all instances serve alike: path and model. */
  readonly kind: string;
}

/** What the answer of one request said of the cache, in bytes of its prompt. */
export interface CacheOutcome {
  readonly expected: number;
  readonly found: number;
}

interface Period {
  failures: number;
  succeeded: boolean;
  busy: number;
  failed: number;
  served: number;
  expectedBytes?: number;
  foundBytes?: number;
}

/**
 * Instances remembered as failing; beyond it the oldest are forgotten, so that pods that never
 * return cannot pile up.
 */
const maxRemembered = 10_000;
/** After a failure so many successes are reported: by then they have outweighed it. */
const watchedSuccesses = 20;

/**
 * What an ingress saw at instances since its last report, in the form that `Fleet.outcomes` reads.
 */
export class OutcomeTally {
  readonly #ingress: string;
  readonly #refusals = new Refusals();
  #periods = new Map<string, Period>();
  /** Instances of whose cache the last news was bad. */
  readonly #missing = new Set<string>();
  /** Successes still to be reported of instances that failed, the longest unfailing first. */
  readonly #watched = new Map<string, number>();

  constructor(ingress: string) {
    this.#ingress = ingress;
  }

  /**
   * An answer of status 2xx begins: the instance does not refuse such requests. `now` in monotonic
   * milliseconds.
   */
  accepted({ instance, kind }: Call, now: number): void {
    this.#refusals.served(instance, kind, now);
  }

  record(call: Call, outcome: Outcome, now: number): void {
    const { instance } = call;
    switch (outcome) {
      case 'succeeded':
        this.#succeeded(instance);
        return;
      case 'refused':
        // It was quick to answer, which is good only if it was right.
        if (this.#refusals.refused(instance, call.kind, now)) this.#failed(instance);
        else this.#succeeded(instance);
        return;
      case 'failed':
        this.#failed(instance);
        return;
      case 'busy':
        this.#period(instance).busy += 1;
    }
  }

  /**
   * An answer said how much of its prompt was cached. That what was expected is there is news only
   * after it was not.
   */
  cached(instance: string, { expected, found }: CacheOutcome): void {
    const misses = found < expected / 2;
    if (!misses && !this.#missing.delete(instance)) return;
    if (misses) this.#missing.add(instance);
    if (this.#missing.size > maxRemembered) this.#missing.clear();
    const period = this.#period(instance);
    period.expectedBytes = (period.expectedBytes ?? 0) + expected;
    period.foundBytes = (period.foundBytes ?? 0) + found;
  }

  /** The report of the period that ends now, or null when there is nothing to report. */
  take(): OutcomeReport | null {
    if (this.#periods.size === 0) return null;
    const outcomes = [...this.#periods].map(([instance, period]) => ({ instance, ...period }));
    this.#periods = new Map();
    return { ingress: this.#ingress, outcomes };
  }

  #succeeded(instance: string): void {
    const watched = this.#watched.get(instance);
    // The common case costs nothing: a success where nothing had failed is no news.
    if (watched === undefined && !this.#periods.has(instance)) return;
    const period = this.#period(instance);
    period.failures = 0;
    period.succeeded = true;
    period.served += 1;
    if (watched === undefined) return;
    if (watched > 1) this.#watched.set(instance, watched - 1);
    else this.#watched.delete(instance);
  }

  #failed(instance: string): void {
    const period = this.#period(instance);
    period.failures += 1;
    period.failed += 1;
    this.#watched.delete(instance);
    this.#watched.set(instance, watchedSuccesses);
    if (this.#watched.size > maxRemembered) this.#watched.delete(this.#watched.keys().next().value ?? '');
  }

  #period(instance: string): Period {
    let period = this.#periods.get(instance);
    if (period === undefined) {
      period = { failures: 0, succeeded: false, busy: 0, failed: 0, served: 0 };
      this.#periods.set(instance, period);
    }
    return period;
  }
}
