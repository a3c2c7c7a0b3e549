import type { QuotaAsk, QuotaLease, QuotaRecountReply } from '@llm-gateway/protocol';
import { type Share, shareOf } from './shares.ts';
import { SpendWindow } from './spend-window.ts';

/** Requests, tokens, slots: the order of `quotaResources`. */
export type Amounts = [number, number, number];

/** How long a grant may be used, in milliseconds, from when it was asked for. */
export const leaseMs = 1000;
/**
 * A grant that its ingress has not seen after so long is lost: it takes no reply that is older than
 * a lease.
 */
const lostMs = 2 * leaseMs;

export const requests = 0;
export const tokens = 1;
export const slots = 2;
const each = [requests, tokens, slots] as const;

interface Account {
  readonly id: string;
  readonly granted: Amounts;
  readonly spent: Amounts;
  readonly returned: Amounts;
  /** Of requests and of tokens. */
  readonly windows: readonly [SpendWindow, SpendWindow];
  grantedAtMs: number;
  /** The newest query that was taken. */
  sequence: number;
  /** Whether the ingress is known to have it. */
  confirmed: boolean;
}

/** An ingress that is answered too late. */
export interface LateIngress {
  readonly name: string;
  readonly share: Share;
}

export interface LedgerContext {
  /** Monotonic milliseconds. */
  readonly now: number;
  /** How many ingresses there are: a grant in advance leaves enough for each. */
  readonly ingresses: number;
  /** Those that serve their share alone: it is kept for them. Left out: none does. */
  readonly late?: readonly LateIngress[];
  readonly sequence: number;
  /** Names a new account; unlike all others. */
  newId(): string;
}

/**
 * What one client may still spend over all ingresses, kept by its owner. An ingress's account only
 * adds up: what it was granted, spent and gave back since the account began. So a message that is
 * lost, doubled or late changes nothing that the next one does not put right, and what is granted
 * and not accounted for counts as spent.
 */
export class Ledger {
  readonly #accounts = new Map<string, Account>();
  #limits: QuotaAsk['limits'] = [null, null, null];
  /** While the ingresses are asked what they spent: settles with that. */
  counting: Promise<void> | undefined;
  /** Whether they have been asked. */
  counted = false;

  /** Whether what this ingress spent may be unknown here: then all ingresses are to be asked. */
  isUnknown(ingress: string, { account, apart }: QuotaAsk): boolean {
    if (!this.counted || apart) return true;
    const known = this.#accounts.get(ingress);
    if (account === null) return known !== undefined && each.some((at) => known.spent[at] + known.returned[at] > 0);
    if (account === known?.id) return false;
    // It was on its way while a recount began the account that the ingress has by now.
    return !(known?.confirmed === true && limiterOf(known.id) === limiterOf(account));
  }

  /** What an ingress says, and what it is granted. */
  answer(ingress: string, ask: QuotaAsk, context: LedgerContext): QuotaLease {
    const { now, ingresses, late = [] } = context;
    this.#limits = ask.limits;
    const account = this.#accounts.get(ingress) ?? this.#open(ingress, context.newId(), now);
    if (ask.account === account.id) settle(account, ask, context);
    const free: Amounts = [0, 0, 0];
    const resetMs: Amounts = [0, 0, 0];
    let tight = false;
    for (const at of each) {
      const limit = ask.limits[at];
      if (limit === null) continue;
      const left = Math.max(0, limit - this.#used(at, now) - this.#keptFor(late, at, { limit, now, ingress }));
      const needed = Math.min(ask.want[at], left);
      const share = 2 * Math.max(1, ingresses);
      let more = Math.min(ask.more[at], Math.floor((left - needed) / share));
      if (left - needed - more < share * Math.max(1, ask.want[at], ask.more[at])) {
        tight = true;
        more = 0;
      }
      if (needed + more > 0) account.grantedAtMs = now;
      account.granted[at] += needed + more;
      free[at] = left - needed - more;
      resetMs[at] = this.#resetMs(at, Math.max(1, ask.want[at] - needed), now);
    }
    return { account: account.id, granted: [...account.granted], free, resetMs, tight };
  }

  /** What an ingress spent in the last minute and holds, as the beginning of an account. */
  recount(ingress: string, id: string, spent: QuotaRecountReply['clients'][number], now: number): void {
    const account = this.#open(ingress, id, now);
    account.confirmed = true;
    account.windows[requests].replace(spent.requests, now);
    account.windows[tokens].replace(spent.tokens, now);
    for (const at of each) account.granted[at] = spent.held[at];
  }

  /**
   * The ingress has not said yet what it spent, and may or may not have the account: what is known
   * of it stays.
   */
  uncounted(ingress: string, id: string, now: number): void {
    const before = this.#accounts.get(ingress);
    if (before === undefined) {
      this.#open(ingress, id, now);
      return;
    }
    for (const at of [requests, tokens] as const) before.windows[at].add(heldOf(before, at), now);
    const inFlight = heldOf(before, slots);
    this.#accounts.set(ingress, { ...newAccount(id, now), windows: before.windows, granted: [0, 0, inFlight] });
  }

  /**
   * As `recount`, of an ingress that was counted as `uncounted` before; false when it has another
   * account by now.
   */
  recountLate(ingress: string, id: string, spent: QuotaRecountReply['clients'][number], now: number): boolean {
    const account = this.#accounts.get(ingress);
    if (account?.id !== id) return false;
    account.confirmed = true;
    for (const [at, history] of [spent.requests, spent.tokens].entries()) {
      const window = account.windows[at as 0 | 1];
      // It may have spent something since, which was told first.
      if (history.reduce((sum, [, amount]) => sum + amount, 0) > window.sum(now)) window.replace(history, now);
    }
    for (const at of each) account.granted[at] = Math.max(account.granted[at], spent.held[at]);
    return true;
  }

  /**
   * The ingress is gone, and its requests with it: what it held of requests and tokens counts as
   * spent.
   */
  lost(ingress: string, now: number): void {
    const account = this.#accounts.get(ingress);
    if (account === undefined) return;
    for (const at of [requests, tokens] as const) account.windows[at].add(heldOf(account, at), now);
    for (const at of each) account.returned[at] = account.granted[at] - account.spent[at];
    if (isEmpty(account, now)) this.#accounts.delete(ingress);
  }

  /** Whether nothing is held or spent, so that it can be dropped. */
  isIdle(now: number): boolean {
    for (const account of this.#accounts.values()) if (!isEmpty(account, now)) return false;
    return this.counting === undefined;
  }

  /** The accounts' ingresses. */
  get ingresses(): Iterable<string> {
    return this.#accounts.keys();
  }

  #open(ingress: string, id: string, now: number): Account {
    const account = newAccount(id, now);
    this.#accounts.set(ingress, account);
    return account;
  }

  #used(at: 0 | 1 | 2, now: number): number {
    let used = 0;
    for (const account of this.#accounts.values()) used += usedOf(account, at, now);
    return used;
  }

  /** What of the shares of others, which serve them alone, is not known to be used. */
  #keptFor(
    late: readonly LateIngress[],
    at: 0 | 1 | 2,
    { limit, now, ingress }: { limit: number; now: number; ingress: string },
  ): number {
    let kept = 0;
    for (const { name, share } of late) {
      if (name === ingress) continue;
      const account = this.#accounts.get(name);
      const used = account === undefined ? 0 : usedOf(account, at, now);
      kept += Math.max(0, shareOf(limit, share) - used);
    }
    return kept;
  }

  /** The earliest time at which `amount` more is available, by what is spent so far. */
  #resetMs(at: 0 | 1 | 2, amount: number, now: number): number {
    if (at === slots) return 0;
    const over = this.#used(at, now) + amount - (this.#limits[at] ?? 0);
    if (over <= 0) return 0;
    // Each account gives way at its own pace; the first that suffices alone, or all of them together.
    let reset = Number.POSITIVE_INFINITY;
    let latest = 0;
    for (const { windows } of this.#accounts.values()) {
      const sum = windows[at].sum(now);
      reset = Math.min(reset, windows[at].waitFor(over, now));
      if (sum > 0) latest = Math.max(latest, windows[at].waitFor(sum, now));
    }
    return Math.ceil(Number.isFinite(reset) ? reset : latest);
  }
}

function newAccount(id: string, now: number): Account {
  return {
    id,
    granted: [0, 0, 0],
    spent: [0, 0, 0],
    returned: [0, 0, 0],
    windows: [new SpendWindow(), new SpendWindow()],
    grantedAtMs: now,
    sequence: -1,
    confirmed: false,
  };
}

/** Granted, and neither spent nor given back. */
function heldOf({ granted, spent, returned }: Account, at: 0 | 1 | 2): number {
  return Math.max(0, granted[at] - spent[at] - returned[at]);
}

/** What it holds, and what it spent in the last minute. */
function usedOf(account: Account, at: 0 | 1 | 2, now: number): number {
  return heldOf(account, at) + (at === slots ? 0 : account.windows[at].sum(now));
}

function isEmpty(account: Account, now: number): boolean {
  return each.every((at) => heldOf(account, at) === 0) && account.windows.every((window) => window.sum(now) === 0);
}

function settle(account: Account, ask: QuotaAsk, { now, sequence }: LedgerContext): void {
  account.confirmed = true;
  const isNewest = sequence > account.sequence;
  if (isNewest) account.sequence = sequence;
  const isLost = isNewest && now - account.grantedAtMs > lostMs;
  for (const at of each) {
    if (at !== slots) account.windows[at].add(ask.spent[at] - account.spent[at], now);
    account.spent[at] = Math.max(account.spent[at], ask.spent[at]);
    account.returned[at] = Math.max(account.returned[at], ask.returned[at]);
    if (isLost) account.granted[at] = Math.min(account.granted[at], ask.granted[at]);
    // What the ingress took of its share, because the answer was late, comes out of the limit.
    account.granted[at] = Math.max(account.granted[at], ask.granted[at]);
    // Requests may take more tokens than was thought.
    account.granted[at] = Math.max(account.granted[at], account.spent[at] + account.returned[at]);
  }
}

/** The limiter that named an account. */
export function limiterOf(account: string): string {
  return account.slice(0, account.lastIndexOf('.'));
}
