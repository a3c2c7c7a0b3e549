import { type Candidate, type Fleet, type LeaseWish, leaseMs } from '@llm-gateway/fleet';
import { type Decision, maxLeasedPicks } from '@llm-gateway/protocol';

/**
 * What became of a pick: a request took it, its time was over, or this ingress knew better than to
 * use it.
 */
export type PickResult = 'taken' | 'expired' | 'skipped';

/**
 * Fewer requests in the time of a lease, and each is asked for as it comes: most picks would
 * expire.
 */
const minUse = 4;
/** How long a pool is left alone that was given nothing. */
const pauseMs = leaseMs / 2;

interface Lease {
  readonly candidates: readonly Candidate[];
  next: number;
  /** Monotonic milliseconds. */
  readonly until: number;
}

/** The picks of one pool that this ingress was leased, in the order in which requests take them. */
export class Stock {
  readonly role = 'neutral';
  readonly model: string | null;
  readonly #onPicks: (outcome: PickResult, count: number) => void;
  /** The oldest first; a second one is asked for when half of the first is left. */
  #leases: Lease[] = [];
  /** Requests of about the last `leaseMs`: those before count less and less. */
  #use = 0;
  #usedAt = Number.NEGATIVE_INFINITY;
  /** Picks are asked for. */
  #awaited = false;
  #pausedUntil = Number.NEGATIVE_INFINITY;

  constructor(model: string | null, onPicks: (outcome: PickResult, count: number) => void) {
    this.model = model;
    this.#onPicks = onPicks;
  }

  get usedAt(): number {
    return this.#usedAt;
  }

  /**
   * The pick for a request that is there now; undefined when none is left that `fleet` has nothing
   * against.
   */
  take(fleet: Pick<Fleet, 'isUsable'>, now: number): Decision | undefined {
    this.#use = this.#use * Math.exp((this.#usedAt - now) / leaseMs) + 1;
    this.#usedAt = now;
    for (let lease = this.#first(now); lease !== undefined; lease = this.#first(now)) {
      const candidate = lease.candidates[lease.next++];
      if (candidate === undefined) break;
      const usable = fleet.isUsable(candidate, now);
      this.#onPicks(usable ? 'taken' : 'skipped', 1);
      if (usable) return candidate.decision;
    }
    return undefined;
  }

  /** The next request for picks, or null. The caller must answer it with `fill`. */
  wish(now: number): LeaseWish | null {
    if (this.#awaited || this.#use < minUse || now < this.#pausedUntil || this.#leases.length > 1) return null;
    const [lease] = this.#leases;
    if (lease !== undefined && 2 * (lease.candidates.length - lease.next) > lease.candidates.length) return null;
    this.#awaited = true;
    const { role, model } = this;
    return { role, model, count: Math.min(Math.ceil(this.#use / 2), maxLeasedPicks) };
  }

  /** Takes the answer to a wish; no candidates: there is nothing to be had now. */
  fill(candidates: readonly Candidate[], { until, now }: { until: number; now: number }): void {
    this.#awaited = false;
    if (candidates.length === 0) this.#pausedUntil = now + pauseMs;
    else this.#leases.push({ candidates, next: 0, until });
  }

  /** Adds what no request has taken yet to the counts of instances. */
  countUnused(counts: Map<string, number>, now: number): void {
    this.#first(now);
    for (const { candidates, next } of this.#leases) {
      for (let at = next; at < candidates.length; at++) {
        const id = candidates[at]?.address.id ?? '';
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
    }
  }

  /** The lease whose turn it is. Those that are over are let go. */
  #first(now: number): Lease | undefined {
    for (let [lease] = this.#leases; lease !== undefined; [lease] = this.#leases) {
      const left = lease.candidates.length - lease.next;
      if (left > 0 && now < lease.until) return lease;
      if (left > 0) this.#onPicks('expired', left);
      this.#leases.shift();
    }
    return undefined;
  }
}
