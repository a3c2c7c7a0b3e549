import { setImmediate } from 'node:timers';
import { announce, type Bus, eachSecond, inParts } from '@llm-gateway/bus';
import {
  GatewayError,
  ingressBeat,
  limiterBeat,
  maxQuotaClients,
  type QuotaAsk,
  type QuotaRecountQuery,
  type QuotaRecountReply,
  quotaLease,
  quotaRecount,
  quotaResources,
} from '@llm-gateway/protocol';
import { leaseMs, Members, type Purse } from '@llm-gateway/quota';
import type { Counter, Metrics } from '@llm-gateway/runtime';
import type { RequestContent } from '../body/request-content.ts';
import { computesNothing, type Place } from '../http/surface.ts';
import type { TokenCounts } from '../usage/usage-reader.ts';
import { Desk, Permit, type Waiter } from './desk.ts';
import type { Client } from './key-file.ts';

interface QuotaParts {
  readonly ingress: string;
  readonly bus: Bus;
  readonly metrics: Metrics;
  /** Longest that a request waits for a limiter. */
  readonly timeoutMs: number;
}

/** What of an exchange matters here. */
interface Limited {
  readonly from: Client | null;
  readonly content: RequestContent;
  readonly promptBytes: number;
  readonly request: { readonly place: Place };
  limits: Purse | null;
  permit: Permit | null;
}

/** Interval at which held grants are checked. */
const lookMs = 250;
const idleLookMs = 1000;
/**
 * After a refusal others are refused so long without a further ask, unless some of the limit is
 * free again before.
 */
const refusedMs = 20;
/** How long a limiter that counted remains the owner, whatever others assume. */
const pinnedMs = 3000;
/** Maximum size of an ask in a message. */
const askBytes = 1536;
const envelopeBytes = 1024;
/** An ingress that was answered too late counts as slow for so long. */
const slowMs = 5000;
/** Slots become free when other requests end: nobody knows when. */
const slotRetryMs = 1000;

/**
 * Keeps the limits of clients: lets requests in by what limiters granted to this ingress, and asks
 * them for more. What is asked for in one turn of the event loop goes in one message. Without a
 * limiter each ingress serves its share of a limit.
 */
export class Quota implements Disposable {
  readonly #parts: QuotaParts;
  readonly #limiters = new Members();
  readonly #ingresses = new Members();
  readonly #desks = new Map<string, Desk>();
  /** The clients to ask for. */
  #wanted = new Set<Desk>();
  /** Those with something in hand, or to report. */
  readonly #open = new Set<Desk>();
  /** Limiters that have not answered yet. */
  readonly #asking = new Set<string>();
  readonly #owned = new DisposableStack();
  readonly #refused: readonly Counter[];
  readonly #asks;
  #sequence = 0;
  #due = false;
  #look: NodeJS.Timeout | undefined;
  #failed = false;
  /** Asks that are under way for longer than requests wait. */
  #overdue = 0;
  #slowUntil = Number.NEGATIVE_INFINITY;
  /** Whether the last look at the way to the bus and back took too long. */
  #wasFar = false;
  readonly #announcer;

  constructor(parts: QuotaParts) {
    this.#parts = parts;
    const { bus, metrics, ingress } = parts;
    const refused = metrics.counter({
      name: 'quota_refused_requests_total',
      help: 'Requests over a limit of their client, by limit',
      labels: ['limit'],
    });
    this.#refused = quotaResources.map((limit) => refused.labels({ limit }));
    this.#asks = metrics.counter({
      name: 'quota_asks_total',
      help: 'Messages to limiters, by result: answered, late (after --quota-timeout-ms) or failed',
      labels: ['result'],
    });
    metrics.gauge({
      name: 'quota_degraded',
      help: '1 while no limiter answers in time and this ingress enforces its share of each limit',
      collect: () => Number(this.degraded),
    });
    this.#owned.use(bus.subscribe(ingressBeat, (beat) => this.#ingresses.hear(beat.ingress, performance.now())));
    this.#announcer = this.#owned.use(
      announce(bus, ingressBeat, () => (this.#isSlow(performance.now()) ? { ingress, late: true } : { ingress })),
    );
    this.#owned.use(
      bus.subscribe(limiterBeat, ({ limiter, answering }) => {
        if (answering) this.#limiters.hear(limiter, performance.now());
        else {
          this.#limiters.drop(limiter);
          // One that begins wants to know who is there.
          this.#announcer.now();
        }
      }),
    );
    this.#owned.use(bus.respond(quotaRecount, (query) => this.#recount(query), { owner: ingress }));
    this.#owned.use(eachSecond(() => this.#sweep()));
    this.#owned.defer(() => clearTimeout(this.#look));
  }

  get degraded(): boolean {
    const now = performance.now();
    return this.#failed || this.#isSlow(now) || this.#limiters.names(now).length === 0;
  }

  /**
   * What clients with limits used here, those with the most requests first; `now` in monotonic
   * milliseconds.
   */
  used(now: number, max: number): { name: string; limits: QuotaAsk['limits']; used: [number, number, number] }[] {
    const all = [...this.#desks.values()].map(({ purse }) => ({
      name: purse.client,
      limits: purse.limits,
      used: purse.used(now),
    }));
    all.sort((a, b) => b.used[2] - a.used[2] || b.used[0] - a.used[0]);
    return all.slice(0, max);
  }

  /**
   * Lets a request in, whose body is there: at once when it returns null. Throws, or rejects with,
   * `GatewayError` `rate_limit_exceeded`, with `details.retryAfterMs`.
   */
  admit(exchange: Limited): Promise<void> | null {
    const { from } = exchange;
    if (from === null || !isLimited(from)) return null;
    const now = performance.now();
    const desk = this.#deskOf(from);
    const { purse } = desk;
    exchange.limits = purse;
    const reserved =
      from.tokensPerMinute === null || computesNothing(exchange.request.place)
        ? 0
        : purse.needed(desk.estimate.of(exchange.content, exchange.promptBytes));
    if (reserved === 0 && from.requestsPerMinute === null && from.concurrentRequests === null) return null;
    if (desk.waiters.length === 0) {
      if (purse.take(reserved, now)) {
        exchange.permit = new Permit(desk, reserved);
        if (purse.runsLow(now)) this.#want(desk);
        return null;
      }
      if (now < desk.refusedUntil) throw this.#refuse(desk, reserved, now);
    }
    if (this.#ownerOf(desk, now) === undefined) {
      if (!purse.takeShare(reserved, this.#share(now), this.#moment(now))) throw this.#refuse(desk, reserved, now);
      exchange.permit = new Permit(desk, reserved);
      return null;
    }
    return this.#wait(exchange, new Permit(desk, reserved), now);
  }

  /** Waits for a limiter. A separate function, so that the common case creates no closures. */
  #wait(exchange: Pick<Limited, 'permit'>, permit: Permit, now: number): Promise<void> {
    const { desk, reserved } = permit;
    return new Promise((resolve, reject) => {
      desk.waiters.push({
        reserved,
        sinceMs: now,
        asked: false,
        letIn() {
          exchange.permit = permit;
          resolve();
        },
        refuse: reject,
      });
      this.#want(desk);
    });
  }

  /**
   * A request that was let in is over.
   * @param counts its tokens; null if unknown: then what was reserved counts, if an
   * engine did anything for it
   */
  ended({ desk, reserved }: Permit, counts: TokenCounts | null, answered: boolean): void {
    const now = performance.now();
    if (counts !== null) desk.estimate.learn(counts.completion);
    // What is only looked up may name tokens that another request took.
    const isFree = reserved === 0 && desk.purse.limits[1] !== null;
    const known = counts === null ? (answered ? reserved : 0) : counts.prompt + counts.completion;
    const used = isFree ? 0 : known;
    desk.purse.ended(reserved, used, now);
    if (desk.waiters.length > 0) this.#serve(desk, now);
    // Requests that wait for an answer asked only for what was not in hand: it stays there for them.
    if (desk.waiters.length === 0) desk.purse.giveBack(now);
    if (desk.purse.isTight && desk.purse.isUnreported) this.#want(desk);
    else this.#watch(desk);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
    for (const desk of this.#desks.values()) this.#degrade(desk);
  }

  #deskOf(client: Client): Desk {
    const known = this.#desks.get(client.name);
    if (known !== undefined) {
      known.isOf(client);
      return known;
    }
    const made = new Desk(client);
    this.#desks.set(client.name, made);
    return made;
  }

  #ownerOf(desk: Desk, now: number): string | undefined {
    if (!this.#parts.bus.connected) return undefined;
    const { pinned } = desk;
    if (pinned !== null && now < pinned.until && this.#limiters.has(pinned.limiter, now)) return pinned.limiter;
    return this.#limiters.ownerOf(desk.purse.client, now);
  }

  #share(now: number) {
    const { ingress } = this.#parts;
    const names = new Set([...this.#ingresses.names(now), ingress]);
    return { ingresses: names.size, rank: [...names].sort().indexOf(ingress) };
  }

  /** Whether a limiter is there and has only not answered yet. */
  #moment(now: number) {
    return { now, late: this.#overdue > 0 };
  }

  #isSlow(now: number): boolean {
    return now < this.#slowUntil;
  }

  /** Limiters keep the share of this ingress for it from now on. */
  #slow(now: number): void {
    const wasSlow = this.#isSlow(now);
    this.#slowUntil = now + slowMs;
    if (!wasSlow) this.#announcer.now();
  }

  #want(desk: Desk): void {
    this.#wanted.add(desk);
    if (this.#due) return;
    this.#due = true;
    setImmediate(() => {
      this.#due = false;
      this.#askAll();
    });
  }

  #askAll(): void {
    const now = performance.now();
    const wanted = this.#wanted;
    this.#wanted = new Set();
    const byOwner = new Map<string, Desk[]>();
    for (const desk of wanted) {
      const owner = this.#ownerOf(desk, now);
      if (owner === undefined) this.#degrade(desk);
      // Together with what comes meanwhile, when the answer is there.
      else if (this.#asking.has(owner)) this.#wanted.add(desk);
      else {
        const desks = byOwner.get(owner);
        if (desks === undefined) byOwner.set(owner, [desk]);
        else desks.push(desk);
      }
    }
    const maxBytes = this.#parts.bus.maxBytes - envelopeBytes;
    for (const [owner, desks] of byOwner) {
      const fitting = inParts(desks, () => askBytes, maxBytes)[0]?.slice(0, maxQuotaClients) ?? [];
      for (const desk of desks.slice(fitting.length)) this.#wanted.add(desk);
      void this.#ask(owner, fitting);
    }
  }

  /** Never rejects. */
  async #ask(owner: string, desks: readonly Desk[]): Promise<void> {
    const { bus, ingress, timeoutMs } = this.#parts;
    const askedAt = performance.now();
    const asks = desks.map((desk) => {
      // What is out of time is no longer in hand: all of what is needed is asked for.
      if (desk.purse.isOver(askedAt)) desk.purse.giveBack(askedAt);
      for (const waiter of desk.waiters) waiter.asked = true;
      return desk.purse.ask(desk.purse.wants(desk.waiters.length, desk.reserved), askedAt);
    });
    this.#asking.add(owner);
    let isLate = false;
    const late = setTimeout(() => {
      setImmediate(() => {
        if (!this.#asking.has(owner)) return;
        isLate = true;
        this.#late(owner, desks);
      });
    }, timeoutMs);
    try {
      this.#sequence++;
      const query = { ingress, sequence: this.#sequence, asks };
      const reply = await bus.request(quotaLease, query, { timeoutMs: leaseMs, owner });
      const now = performance.now();
      this.#failed = false;
      if (isLate) {
        this.#slow(now);
        this.#limiters.hear(owner, now);
      } else this.#asking.delete(owner);
      this.#asks.labels({ result: isLate ? 'late' : 'answered' }).inc();
      for (const [at, desk] of desks.entries()) {
        const lease = reply.leases[at];
        const ask = asks[at] as QuotaAsk;
        const isFresh = lease !== undefined && now - askedAt <= reply.validMs;
        desk.purse.reported(ask);
        if (isFresh && desk.purse.receive(lease, { askedAt, validMs: reply.validMs, now }, ask.want)) {
          this.#answered(desk, now);
          if (desk.purse.owes(ask, lease)) this.#want(desk);
        } else this.#again(desk);
      }
    } catch (error) {
      if (isAway(error)) this.#limiters.drop(owner);
      if (!isLate) this.#asking.delete(owner);
      this.#asks.labels({ result: 'failed' }).inc();
      // The next owner is asked, until one answers, none is left, or the time is over.
      for (const desk of desks) {
        if (isAway(error)) this.#again(desk);
        else this.#degrade(desk);
        this.#watch(desk);
      }
    } finally {
      clearTimeout(late);
      if (isLate) this.#overdue--;
      if (this.#wanted.size > 0) this.#wantAgain();
    }
  }

  #wantAgain(): void {
    const [first] = this.#wanted;
    if (first !== undefined) this.#want(first);
  }

  /** The limiter did not answer in time; a late answer still counts. */
  #late(owner: string, desks: readonly Desk[]): void {
    this.#limiters.drop(owner);
    this.#asking.delete(owner);
    this.#overdue++;
    for (const desk of desks) this.#degrade(desk);
    if (this.#wanted.size > 0) this.#wantAgain();
  }

  #again(desk: Desk): void {
    for (const waiter of desk.waiters) waiter.asked = false;
    const now = performance.now();
    const oldest = desk.waiters[0];
    if (oldest !== undefined && now - oldest.sinceMs >= this.#parts.timeoutMs) this.#degrade(desk);
    else if (oldest !== undefined) this.#want(desk);
  }

  /** The limiter has answered. */
  #answered(desk: Desk, now: number): void {
    this.#serve(desk, now);
    const { waiters } = desk;
    let refused = false;
    for (let at = 0; at < waiters.length; ) {
      const waiter = waiters[at] as Waiter;
      if (!waiter.asked) {
        at++;
        continue;
      }
      waiters.splice(at, 1);
      waiter.refuse(this.#refuse(desk, waiter.reserved, now));
      refused = true;
    }
    if (refused) desk.refusedUntil = now + Math.min(refusedMs, this.#retryMs(desk, null, now));
    if (waiters.length > 0) this.#want(desk);
    // What came too late for whoever waited for it is for the others.
    else if (desk.purse.isTight && desk.purse.giveBack(now, true)) this.#want(desk);
    this.#watch(desk);
  }

  /** Admits waiting requests as far as the held grants allow. */
  #serve(desk: Desk, now: number): void {
    const { waiters, purse } = desk;
    let served = 0;
    for (const waiter of waiters) {
      if (!purse.take(waiter.reserved, now)) break;
      waiter.letIn();
      served++;
    }
    waiters.splice(0, served);
  }

  /** Without a limiter: lets in whom the share of this ingress has room for. */
  #degrade(desk: Desk): void {
    if (desk.waiters.length === 0) return;
    this.#failed = true;
    const now = performance.now();
    const share = this.#share(now);
    for (const waiter of desk.waiters.splice(0)) {
      const { reserved } = waiter;
      if (desk.purse.take(reserved, now) || desk.purse.takeShare(reserved, share, this.#moment(now))) waiter.letIn();
      else waiter.refuse(this.#refuse(desk, reserved, now));
    }
  }

  #recount({ limiter, clients }: QuotaRecountQuery): QuotaRecountReply {
    const now = performance.now();
    this.#limiters.hear(limiter, now);
    return {
      ingress: this.#parts.ingress,
      clients: clients.map(({ client, account }) => {
        const desk = this.#desks.get(client);
        if (desk === undefined) return { requests: [], tokens: [], held: [0, 0, 0] };
        desk.pinned = { limiter, until: now + pinnedMs };
        return desk.purse.recount(account, now);
      }),
    };
  }

  #watch(desk: Desk): void {
    this.#open.add(desk);
    this.#look ??= setTimeout(() => this.#lookAtAll(), lookMs).unref();
  }

  /** Returns expired grants and reports what was spent. */
  #lookAtAll(): void {
    this.#look = undefined;
    const now = performance.now();
    for (const desk of this.#open) {
      const { purse } = desk;
      if (!purse.isOver(now) || desk.waiters.length > 0) continue;
      purse.giveBack(now);
      if (!purse.isUnreported) this.#open.delete(desk);
      else if (this.#ownerOf(desk, now) !== undefined) this.#want(desk);
    }
    // Without a limiter there is nothing to report to.
    const waitMs = this.#limiters.names(now).length > 0 ? lookMs : idleLookMs;
    if (this.#open.size > 0) this.#look = setTimeout(() => this.#lookAtAll(), waitMs).unref();
  }

  /** Forgets clients that spent nothing for a minute. */
  #sweep(): void {
    const now = performance.now();
    // After a pause of this process nobody counts as gone who could not be heard meanwhile.
    this.#limiters.tick(now);
    this.#ingresses.tick(now);
    if (!this.#parts.bus.connected) {
      this.#ingresses.excuse(now);
      return;
    }
    this.#measure();
    for (const [name, desk] of this.#desks) {
      const isBusy = desk.waiters.length > 0 || this.#wanted.has(desk) || this.#asking.size > 0;
      if (!isBusy && desk.purse.isEmpty(now)) this.#desks.delete(name);
    }
  }

  /** Where the way to a limiter and back takes too long, its answers come too late. */
  #measure(): void {
    const { bus, timeoutMs } = this.#parts;
    void bus.roundTripMs().then((ms) => {
      const isFar = ms !== null && ms > timeoutMs;
      if (isFar && this.#wasFar) this.#slow(performance.now());
      this.#wasFar = isFar;
    });
  }

  #refuse(desk: Desk, reserved: number, now: number): GatewayError {
    const lacking = desk.purse.lacking(reserved) ?? 0;
    this.#refused[lacking]?.inc();
    const retryAfterMs = this.#retryMs(desk, lacking, now);
    const limit = desk.purse.limits[lacking];
    const what = ['requests per minute', 'tokens per minute', 'concurrent requests'][lacking];
    return new GatewayError('rate_limit_exceeded', `the limit of ${limit} ${what} is reached`, {
      details: { retryAfterMs },
    });
  }

  #retryMs(desk: Desk, lacking: 0 | 1 | 2 | null, now: number): number {
    if (lacking === 2) return slotRetryMs;
    return lacking === null
      ? desk.purse.resetMs(0, now) || desk.purse.resetMs(1, now)
      : desk.purse.resetMs(lacking, now);
  }
}

function isLimited({ requestsPerMinute, tokensPerMinute, concurrentRequests }: Client): boolean {
  return requestsPerMinute !== null || tokensPerMinute !== null || concurrentRequests !== null;
}

/** Whether the limiter that was asked is at fault, and not the bus or the message. */
function isAway(error: unknown): boolean {
  return error instanceof GatewayError && (error.code === 'bus_no_responders' || error.code === 'bus_timeout');
}
