import type { OutcomeReport } from '@llm-gateway/protocol';

type Outcome = Omit<OutcomeReport['outcomes'][number], 'instance'>;

/** Consecutive failures, over all ingresses, after which an instance is ejected for a while. */
const failuresToEject = 3;
const firstEjectionMs = 1000;
const maxEjectionMs = 30_000;
/**
 * An instance that fails again within so many times its last ejection is ejected for twice as long,
 */
const relapseFactor = 2;
/**
 * unless it served so many requests meanwhile: then it fails now and then, which the penalty is
 * for.
 */
const servedToTrust = 10;
/**
 * A probe of which no failure is reported for so long went well: ingresses report a success only
 * where they had seen a failure. Longer than a connect timeout and a report take together.
 */
const probeVerdictMs = 5000;
/** How long a 429 or 503 makes the others preferred. */
const busyMs = 1000;
/** What one call counts for in the share of calls that fail: about the last ten decide. */
const callWeight = 0.1;
/**
 * Without calls the share halves in this time, so that an instance that is avoided for it is tried
 * again.
 */
const shareHalfLifeMs = 10_000;
/** A smaller share is chance. */
const minShare = 0.05;
/**
 * See `Health.penalty`. Steep enough that an instance that is slow is preferred to one that is
 * quick and fails now and then,
 */
const penaltyPower = 12;
/**
 * and bounded, so that an instance that serves a part of its calls is preferred to one that takes
 * all and answers none.
 */
const maxPenalty = 64;
/** A ramp begins with this part of the load of the others. */
const firstRampPart = 0.1;
/** How often factors that change with time are computed again. */
const factorIntervalMs = 100;

/**
 * - `live`: chosen as usual.
 * - `ejected`: receives no request until its time is over.
 * - `due`: its time is over; a request that it suits is to be its probe.
 * - `probing`: one request is there; the others stay away until its outcome is known.
 */
export type HealthState = 'live' | 'ejected' | 'due' | 'probing';
/** `probing` also while it waits for its probe. */
export type Condition = 'live' | 'busy' | 'suspect' | 'ejected' | 'probing';

/**
 * Passive health of one instance, from what happened to requests there. Times are monotonic milliseconds.
 * It never ejects by itself: whether the pools can spare the instance is for the fleet to say.
 */
export class Health {
  state: HealthState = 'live';
  /**
   * Of an instance that is not live: whether its pools keep enough others. One that they cannot
   * spare is *suspect*: it still comes before those that are ejected, and any success ends its
   * time.
   */
  spared = true;
  /** 0: not busy. */
  busyUntil = 0;
  /** When the state changes by itself; meaningless in `live` and `due`. */
  until = 0;
  /** What its load is multiplied by while it is ramped up; 1: nothing. */
  ramp = 1;
  /**
   * What its score is multiplied by for the share `s` of its calls that fail; 1: nothing. Failures
   * are fast, so a failing instance has less in flight and looks idle: with the penalty 1 / (1 - s)
   * it would get as many calls as the others. A higher power of it gives it fewer.
   */
  penalty = 1;
  readonly #slowStartMs: number;
  #failures = 0;
  #ejectionMs = 0;
  #liveSince = Number.NEGATIVE_INFINITY;
  #servedSince = 0;
  #rampSince = Number.NEGATIVE_INFINITY;
  #share = 0;
  #shareAt = 0;

  /** @param slowStartMs how long `startRamp` lasts; 0: no ramp */
  constructor(slowStartMs = 0) {
    this.#slowStartMs = slowStartMs;
  }

  get suspect(): boolean {
    return this.state !== 'live' && !this.spared;
  }

  /** How operators are shown it. */
  condition(now: number): Condition {
    if (this.state === 'live') return this.busyUntil > now ? 'busy' : 'live';
    return this.suspect ? 'suspect' : this.state === 'ejected' ? 'ejected' : 'probing';
  }

  /**
   * Takes what one ingress saw in one period. Answers whether the instance has failed enough to be
   * ejected (again). Failures end before successes: `inFlight`, where it is known, says how many
   * may still succeed.
   */
  observe(outcome: Outcome, now: number, inFlight = 0): boolean {
    if (outcome.busy > 0) this.busyUntil = now + busyMs;
    this.#observeShare(outcome, now);
    switch (this.state) {
      case 'live':
        this.#failures = outcome.succeeded ? outcome.failures : this.#failures + outcome.failures;
        return outcome.failures > 0 && this.#failures >= Math.max(failuresToEject, inFlight / 2);
      case 'probing':
        if (outcome.failures > 0) return true;
        if (outcome.succeeded) {
          this.#share = 0;
          this.#recover(now, 0);
          this.startRamp(now);
        }
        return false;
      // Requests that were under way when it was ejected still end; they say nothing new.
      case 'ejected':
      case 'due':
        // It takes requests when nothing better is left, and one that still serves some must not lie idle.
        if (!this.spared && outcome.succeeded) this.#recover(now, outcome.failures);
        return false;
    }
  }

  /**
   * `random` in [0, 1): ±20 %, so that routers and instances do not fall into step. Answers for how
   * long.
   */
  eject(now: number, { random, spared }: { random: () => number; spared: boolean }): number {
    const soon = now - this.#liveSince < relapseFactor * this.#ejectionMs && this.#servedSince < servedToTrust;
    const relapsed = this.state !== 'live' || soon;
    this.#ejectionMs = relapsed ? Math.min(this.#ejectionMs * 2, maxEjectionMs) : firstEjectionMs;
    this.state = 'ejected';
    this.spared = spared;
    const durationMs = this.#ejectionMs * (0.8 + 0.4 * random());
    this.until = now + durationMs;
    return durationMs;
  }

  probe(now: number): void {
    this.state = 'probing';
    this.until = now + probeVerdictMs;
  }

  /** From now on it is ramped up: it is new, or it was away. */
  startRamp(now: number): void {
    this.#rampSince = now;
    this.#computeFactors(now);
  }

  /** Takes the steps that only time takes. */
  tick(now: number): void {
    if (now >= this.busyUntil) this.busyUntil = 0;
    if (this.state === 'ejected' && now >= this.until) this.state = 'due';
    else if (this.state === 'probing' && now >= this.until) {
      // No news of the probe is good news, but not yet trust.
      this.#recover(now, failuresToEject - 1);
      this.startRamp(now);
    }
    if (this.state === 'live') this.#computeFactors(now);
  }

  /** When `tick` changes something next; infinite: never. */
  nextChange(now: number): number {
    const busy = this.busyUntil > 0 ? this.busyUntil : Number.POSITIVE_INFINITY;
    const state = this.state === 'ejected' || this.state === 'probing' ? this.until : Number.POSITIVE_INFINITY;
    // They do not matter before it is live again.
    const changing = this.state === 'live' && (this.ramp > 1 || this.#share > 0);
    // All instances at the same times, so that the fleet looks through them seldom.
    const nextTime = (Math.floor(now / factorIntervalMs) + 1) * factorIntervalMs;
    const factors = changing ? nextTime : Number.POSITIVE_INFINITY;
    return Math.min(busy, state, factors);
  }

  #recover(now: number, failures: number): void {
    this.state = 'live';
    this.spared = true;
    this.#failures = failures;
    this.#liveSince = now;
    this.#servedSince = 0;
    this.#computeFactors(now);
  }

  #observeShare(outcome: Outcome, now: number): void {
    const { failed = outcome.failures, served = Number(outcome.succeeded) } = outcome;
    const before = this.#shareNow(now) * (1 - callWeight) ** served;
    this.#share = 1 - (1 - before) * (1 - callWeight) ** failed;
    this.#shareAt = now;
    this.#servedSince += served;
    this.#computeFactors(now);
  }

  #shareNow(now: number): number {
    return this.#share === 0 ? 0 : this.#share * 2 ** ((this.#shareAt - now) / shareHalfLifeMs);
  }

  #computeFactors(now: number): void {
    const sinceMs = now - this.#rampSince;
    this.ramp = sinceMs < this.#slowStartMs ? 1 / Math.max(sinceMs / this.#slowStartMs, firstRampPart) : 1;
    const share = this.#shareNow(now);
    if (share < minShare) this.#share = 0;
    this.penalty = share < minShare ? 1 : Math.min((1 - share) ** -penaltyPower, maxPenalty);
  }
}
