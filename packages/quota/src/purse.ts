import type { QuotaAsk, QuotaLease, QuotaRecountReply } from '@llm-gateway/protocol';
import { type Amounts, requests, slots, tokens } from './ledger.ts';
import { type Share, shareOf } from './shares.ts';
import { SpendWindow, windowMs } from './spend-window.ts';

const each = [requests, tokens, slots] as const;

/** What to ask for in advance is what is used in so long. */
const aheadMs = 500;

/**
 * What one ingress holds of a client's limits, and what it spent of them. Times are monotonic
 * milliseconds.
 *
 * Tokens are reserved when a request is let in, and spent when it has ended: what was reserved
 * stays in hand until then, as do the slots of requests in flight.
 */
export class Purse {
  readonly client: string;
  limits: QuotaAsk['limits'];
  /** Tokens of requests in flight. */
  #reserved = 0;
  #inFlight = 0;
  #account: string | null = null;
  #granted: Amounts = [0, 0, 0];
  #spent: Amounts = [0, 0, 0];
  #returned: Amounts = [0, 0, 0];
  /** The part of `#spent` and `#returned` that the limiter has confirmed. */
  #reported: { readonly spent: Amounts; readonly returned: Amounts } = { spent: [0, 0, 0], returned: [0, 0, 0] };
  #validUntil = 0;
  #tight = false;
  /**
   * The limiter's last word on what is left for all; null before it has said any in this account.
   */
  #free: Amounts | null = null;
  #resetAt: Amounts = [0, 0, 0];
  /** Of this ingress alone, with an account or without. */
  readonly #own = [new SpendWindow(), new SpendWindow()] as const;
  #apart = false;
  /** Since this ingress serves its share alone: what of it is left. */
  #shareLeft: Amounts | null = null;
  /**
   * Since the limiter is away: what was spent before, and the limiter's last word on what is left.
   */
  #apartFrom: { readonly at: number; readonly spent: Amounts; readonly free: Amounts | null } | null = null;
  /** For `#pace`: requests let in, and their tokens, since then. */
  #paceFrom = 0;
  #paced: [number, number] = [0, 0];
  #pace: [number, number] = [0, 0];

  constructor(client: string, limits: QuotaAsk['limits']) {
    this.client = client;
    this.limits = limits;
  }

  get account(): string | null {
    return this.#account;
  }

  /** Whether nothing is in flight, nothing in hand, and nothing that was spent counts any more. */
  isEmpty(now: number): boolean {
    if (this.#inFlight > 0 || this.#own[0].sum(now) > 0 || this.#own[1].sum(now) > 0) return false;
    return now >= this.#validUntil && !this.isUnreported;
  }

  /** What this ingress let in: requests and tokens of the last minute, and requests in flight. */
  used(now: number): [requests: number, tokens: number, slots: number] {
    return [this.#own[requests].sum(now), this.#own[tokens].sum(now), this.#inFlight];
  }

  /** Whether the limiter has not yet confirmed everything spent and returned. */
  get isUnreported(): boolean {
    const { spent, returned } = this.#reported;
    if (this.#account === null) return false;
    for (const at of each) if (spent[at] < this.#spent[at] || returned[at] < this.#returned[at]) return true;
    return false;
  }

  /**
   * Whether others need what is not needed here, so that the limiter is to hear of everything at
   * once.
   */
  get isTight(): boolean {
    return this.#tight;
  }

  /** Whether the time of what is in hand is over. */
  isOver(now: number): boolean {
    return now >= this.#validUntil;
  }

  /** An ask of the present account reached the limiter. */
  reported({ account, spent, returned }: QuotaAsk): void {
    if (account === this.#account) this.#reported = { spent: [...spent], returned: [...returned] };
  }

  /**
   * What to reserve for a request of so many tokens: none could ever have more than the limit. At
   * least one, so that a limit of 0 lets nobody in.
   */
  needed(estimate: number): number {
    const limit = this.limits[tokens];
    return limit === null ? 0 : Math.max(1, Math.min(estimate, limit));
  }

  /** Lets a request in that reserves so many tokens, if what is in hand is enough for it. */
  take(reserved: number, now: number): boolean {
    if (now >= this.#validUntil || this.lacking(reserved) !== null) return false;
    this.#spend(reserved, now);
    return true;
  }

  /**
   * As `take`, without a limiter: of the share of this ingress. What it takes beyond what is in
   * hand it grants itself: with its next ask the limiter counts it as granted, and what the limiter
   * grants meanwhile is the same amount, not one more.
   * @param late a limiter is there and has not answered yet; otherwise it is to begin anew when it
   * is back
   */
  takeShare(reserved: number, share: Share, { now, late = false }: { now: number; late?: boolean }): boolean {
    this.#apartFrom ??= {
      at: now,
      spent: [this.#own[0].sum(now), this.#own[1].sum(now) + this.#reserved, this.#inFlight],
      free: this.#free === null ? null : [...this.#free],
    };
    const used: Amounts = [this.#own[0].sum(now), this.#own[1].sum(now) + this.#reserved, this.#inFlight];
    const needs: Amounts = [1, reserved, 1];
    const left: Amounts = [0, 0, 0];
    for (const at of each) {
      const limit = this.limits[at];
      if (limit !== null) left[at] = this.#allowed(at, limit, { share, now }) - used[at];
    }
    this.#shareLeft = left;
    for (const at of each) if (this.limits[at] !== null && left[at] < needs[at]) return false;
    for (const at of each) left[at] -= needs[at];
    if (!late) this.#apart = true;
    this.#spend(reserved, now);
    for (const at of each) {
      const lacking = -this.#inHand(at);
      if (this.limits[at] !== null && lacking > 0) this.#granted[at] += lacking;
    }
    return true;
  }

  /**
   * Whether it granted itself anything that the limiter had not heard of when it answered this ask.
   */
  owes(ask: QuotaAsk, lease: QuotaLease): boolean {
    return each.some((at) => this.#granted[at] > Math.max(ask.granted[at], lease.granted[at]));
  }

  /**
   * A request that was let in has ended. @param reserved what it was let in with @param used its
   * tokens
   */
  ended(reserved: number, used: number, now: number): void {
    this.#inFlight--;
    this.#reserved -= reserved;
    if (this.limits[tokens] !== null) this.#spent[tokens] += used;
    this.#own[tokens].add(used, now);
  }

  /** Whether to ask soon, because what is in hand would not last. */
  runsLow(now: number): boolean {
    if (this.#tight) return false;
    for (const at of each) {
      if (this.limits[at] !== null && this.#inHand(at) * 2 < this.#more(at, now)) return true;
    }
    return false;
  }

  /**
   * Whether something is to be given back now: its time is over, or others need it. Then it is out
   * of hand.
   * @param all nobody waits for what was asked for one by one
   */
  giveBack(now: number, all = false): boolean {
    if (now < this.#validUntil && !this.#tight) return false;
    let gave = false;
    for (const at of each) {
      // Requests that were asked for one by one are about to be let in.
      if (!all && now < this.#validUntil && at !== slots) continue;
      const left = this.#inHand(at);
      if (left <= 0) continue;
      this.#returned[at] += left;
      gave = true;
    }
    return gave;
  }

  ask(want: Amounts, now: number): QuotaAsk {
    return {
      client: this.client,
      limits: this.limits,
      account: this.#account,
      apart: this.#apart,
      granted: [...this.#granted],
      spent: [...this.#spent],
      returned: [...this.#returned],
      want: [...want],
      more:
        want[requests] === 0 && this.#pace[requests] === 0
          ? [0, 0, 0]
          : [this.#more(requests, now), this.#more(tokens, now), this.#more(slots, now)],
    };
  }

  /**
   * Takes what was granted; false when the account is another by now.
   * @param times.askedAt when it was asked for; a reply that is older than its lease must not be given here
   * @param want what was asked for; left out: everything
   */
  receive(
    lease: QuotaLease,
    { askedAt, validMs, now }: { askedAt: number; validMs: number; now: number },
    want?: readonly number[],
  ): boolean {
    // Of an account that a recount has ended meanwhile.
    if (this.#account !== null && lease.account !== this.#account) return false;
    this.#account = lease.account;
    for (const at of each) {
      if (lease.granted[at] > this.#granted[at]) {
        this.#granted[at] = lease.granted[at];
        this.#validUntil = Math.max(this.#validUntil, askedAt + validMs);
      }
      // Where nothing was wanted the limiter says when one is free, not what a refused request needs.
      const wasWanted = want === undefined || (want[at] ?? 0) > 0;
      this.#resetAt[at] = Math.max(now + lease.resetMs[at], wasWanted ? 0 : this.#resetAt[at]);
    }
    this.#free = [...lease.free];
    this.#shareLeft = null;
    this.#tight = lease.tight;
    if (!this.#apart) this.#apartFrom = null;
    return true;
  }

  /**
   * Another limiter counts: what is in hand is void, and a new account begins with what requests in
   * flight hold.
   */
  recount(account: string, now: number): QuotaRecountReply['clients'][number] {
    const held: Amounts = [0, this.#reserved, this.#inFlight];
    this.#account = account;
    this.#granted = [...held];
    this.#spent = [0, 0, 0];
    this.#returned = [0, 0, 0];
    this.#reported = { spent: [0, 0, 0], returned: [0, 0, 0] };
    this.#validUntil = 0;
    this.#free = null;
    this.#shareLeft = null;
    this.#apart = false;
    this.#apartFrom = null;
    return { requests: this.#own[requests].history(now), tokens: this.#own[tokens].history(now), held };
  }

  /** What is left for the client, as far as it is known here. */
  remaining(at: 0 | 1 | 2): number {
    if (this.#shareLeft !== null) return Math.max(0, this.#shareLeft[at]);
    return Math.max(0, (this.#free?.[at] ?? 0) + Math.max(0, this.#inHand(at)));
  }

  /** When some of what was spent is free again, in milliseconds from now. */
  resetMs(at: 0 | 1 | 2, now: number): number {
    return Math.max(0, this.#resetAt[at] - now);
  }

  /** What is missing for a request that reserves so many tokens; null: nothing. */
  lacking(reserved: number): 0 | 1 | 2 | null {
    for (const at of each) {
      if (this.limits[at] !== null && this.#inHand(at) < (at === tokens ? reserved : 1)) return at;
    }
    return null;
  }

  /**
   * What is to be asked for so that so many requests, which reserve so many tokens together, are
   * let in.
   */
  wants(count: number, reserved: number): Amounts {
    const missing = (at: 0 | 1 | 2, all: number) =>
      this.limits[at] === null ? 0 : Math.max(0, all - Math.max(0, this.#inHand(at)));
    return [missing(requests, count), missing(tokens, reserved), missing(slots, count)];
  }

  #spend(reserved: number, now: number): void {
    if (this.limits[requests] !== null) this.#spent[requests]++;
    this.#reserved += reserved;
    this.#inFlight++;
    this.#own[requests].add(1, now);
    if (now - this.#paceFrom > aheadMs) {
      const lasted = Math.max(aheadMs, Math.min(now - this.#paceFrom, windowMs));
      this.#pace = [(this.#paced[0] * aheadMs) / lasted, (this.#paced[1] * aheadMs) / lasted];
      this.#paced = [0, 0];
      this.#paceFrom = now;
    }
    this.#paced[0]++;
    this.#paced[1] += reserved;
  }

  /** What to ask for in advance. */
  #more(at: 0 | 1 | 2, now: number): number {
    if (this.limits[at] === null) return 0;
    if (at === slots) return Math.ceil(this.#inFlight / 4);
    const isFresh = now - this.#paceFrom <= 2 * aheadMs;
    return isFresh ? Math.ceil(Math.max(this.#pace[at], this.#paced[at])) : 0;
  }

  /** Granted, and neither spent nor given back. */
  #held(at: 0 | 1 | 2): number {
    return this.#granted[at] - this.#spent[at] - this.#returned[at];
  }

  /** Of that, what no request in flight holds. */
  #inHand(at: 0 | 1 | 2): number {
    const held = this.#held(at);
    if (at === tokens) return held - this.#reserved;
    return at === slots ? held - this.#inFlight : held;
  }

  #allowed(at: 0 | 1 | 2, limit: number, { share, now }: { share: Share; now: number }): number {
    const fair = shareOf(limit, share);
    const from = this.#apartFrom;
    // The limiter's last word holds for a minute: then all that it counted is out of the window.
    if (from === null || from.free === null || now - from.at > windowMs) return fair;
    return Math.min(fair, from.spent[at] + shareOf(from.free[at], share));
  }
}
