/** Failures in a row, over all ingresses, after which an instance is left alone for a while. */
const failuresToEject = 3;
const firstEjectionMs = 1000;
const maxEjectionMs = 30_000;
/** An instance that fails again within so many times its last ejection is ejected for twice as long. */
const relapseFactor = 2;
/**
 * A probe of which no failure is heard for so long went well: ingresses report a success only where they had seen a
 * failure. Longer than a connect timeout and a report take together.
 */
const probeVerdictMs = 5000;
/** How long a 429 or 503 makes the others preferred. */
const busyMs = 1000;

/**
 * - `live`: chosen as usual.
 * - `ejected`: left alone until its time is over.
 * - `due`: its time is over; the next request that it suits is its probe.
 * - `probing`: one request is there; the others stay away until its outcome is known.
 */
export type HealthState = 'live' | 'ejected' | 'due' | 'probing';

/**
 * Passive health of one instance, from what happened to requests there. Times are monotonic milliseconds.
 * It never ejects by itself: whether the pools can spare the instance is for the fleet to say.
 */
export class Health {
  state: HealthState = 'live';
  /** 0: not busy. */
  busyUntil = 0;
  /** When the state changes by itself; meaningless in `live` and `due`. */
  until = 0;
  #failures = 0;
  #ejectionMs = 0;
  #liveSince = Number.NEGATIVE_INFINITY;

  /** Takes what one ingress saw in one period. Answers whether the instance has failed enough to be ejected (again). */
  observe(outcome: { failures: number; succeeded: boolean; busy: number }, now: number): boolean {
    if (outcome.busy > 0) this.busyUntil = now + busyMs;
    switch (this.state) {
      case 'live':
        this.#failures = outcome.succeeded ? outcome.failures : this.#failures + outcome.failures;
        return outcome.failures > 0 && this.#failures >= failuresToEject;
      case 'probing':
        if (outcome.failures > 0) return true;
        if (outcome.succeeded) this.#recover(now, 0);
        return false;
      // Requests that were under way when it was ejected still end; they say nothing new.
      case 'ejected':
      case 'due':
        return false;
    }
  }

  /** `random` in [0, 1): ±20 %, so that routers and instances do not fall into step. Answers for how long. */
  eject(now: number, random: () => number): number {
    const relapsed = this.state !== 'live' || now - this.#liveSince < relapseFactor * this.#ejectionMs;
    this.#ejectionMs = relapsed ? Math.min(this.#ejectionMs * 2, maxEjectionMs) : firstEjectionMs;
    this.state = 'ejected';
    const durationMs = this.#ejectionMs * (0.8 + 0.4 * random());
    this.until = now + durationMs;
    return durationMs;
  }

  probe(now: number): void {
    this.state = 'probing';
    this.until = now + probeVerdictMs;
  }

  /** Back before its time, because too few others are left; one more failure suffices to eject it where it can be spared. */
  readmit(now: number): void {
    this.#recover(now, failuresToEject - 1);
  }

  /** Takes the steps that only time takes. */
  tick(now: number): void {
    if (now >= this.busyUntil) this.busyUntil = 0;
    if (this.state === 'ejected' && now >= this.until) this.state = 'due';
    // No news of the probe is good news, but not yet trust.
    else if (this.state === 'probing' && now >= this.until) this.#recover(now, failuresToEject - 1);
  }

  /** When `tick` changes something next; infinite: never. */
  nextChange(): number {
    const busy = this.busyUntil > 0 ? this.busyUntil : Number.POSITIVE_INFINITY;
    const state = this.state === 'ejected' || this.state === 'probing' ? this.until : Number.POSITIVE_INFINITY;
    return Math.min(busy, state);
  }

  #recover(now: number, failures: number): void {
    this.state = 'live';
    this.#failures = failures;
    this.#liveSince = now;
  }
}
