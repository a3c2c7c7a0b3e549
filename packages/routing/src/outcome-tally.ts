import type { OutcomeReport } from '@llm-gateway/protocol';

/** How one call to an instance ended: answered, failed (connection, 5xx), or alive but wanting less (429, 503). */
export type Outcome = 'succeeded' | 'failed' | 'busy';

interface Period {
  failures: number;
  succeeded: boolean;
  busy: number;
}

/** Instances remembered as failing; beyond it the oldest are forgotten, so that pods that never return cannot pile up. */
const maxRemembered = 10_000;

/** What an ingress saw at instances since its last report, in the form that `Fleet.outcomes` reads. */
export class OutcomeTally {
  readonly #ingress: string;
  #periods = new Map<string, Period>();
  /** Reported as failing and not yet as recovered: the next success there is news. */
  readonly #failing = new Set<string>();

  constructor(ingress: string) {
    this.#ingress = ingress;
  }

  record(instance: string, outcome: Outcome): void {
    let period = this.#periods.get(instance);
    if (period === undefined) {
      // The common case costs nothing: a success where nothing had failed is no news.
      if (outcome === 'succeeded' && !this.#failing.has(instance)) return;
      period = { failures: 0, succeeded: false, busy: 0 };
      this.#periods.set(instance, period);
    }
    switch (outcome) {
      case 'succeeded':
        period.failures = 0;
        period.succeeded = true;
        this.#failing.delete(instance);
        return;
      case 'failed':
        period.failures += 1;
        this.#failing.delete(instance);
        this.#failing.add(instance);
        if (this.#failing.size > maxRemembered) this.#forgetOldest();
        return;
      case 'busy':
        period.busy += 1;
    }
  }

  /** The report of the period that ends now, or null when there is nothing to tell. */
  take(): OutcomeReport | null {
    if (this.#periods.size === 0) return null;
    const outcomes = [...this.#periods].map(([instance, period]) => ({ instance, ...period }));
    this.#periods = new Map();
    return { ingress: this.#ingress, outcomes };
  }

  #forgetOldest(): void {
    for (const oldest of this.#failing) {
      this.#failing.delete(oldest);
      return;
    }
  }
}
