import { setImmediate } from 'node:timers';
import { type Bus, inParts } from '@llm-gateway/bus';
import { type Candidate, type Fleet, type LeaseWish, poolName } from '@llm-gateway/fleet';
import { type Decision, type LeaseReply, routeLease } from '@llm-gateway/protocol';
import type { DecisionNotes } from './decision-notes.ts';
import type { Load } from './load.ts';
import { isAway, type Routers } from './routers.ts';
import { type PickResult, Stock } from './stock.ts';

export interface LeaseObserver {
  /** How the ask for the picks of one pool ended. */
  leaseEnded(result: 'granted' | 'empty' | 'failed'): void;
  picks(outcome: PickResult, count: number): void;
}

interface LeasesParts {
  readonly ingress: string;
  readonly bus: Bus;
  /** That of the route table in use. */
  readonly generation: () => string;
  readonly routers: Routers;
  readonly fleet: Fleet;
  readonly load: Load;
  readonly timeoutMs: number;
  readonly observer: LeaseObserver;
  readonly notes?: DecisionNotes;
}

/** Far above the models that are declared at once. */
const maxStocks = 1000;
/** A stock that was not used for so long has nothing left. */
const idleMs = 1000;
/** Size of a message without its pools or leases. */
const envelopeBytes = 1024;
/** Maximum size of an address in a reply: its hosts are pod names or IP addresses. */
const pickBytes = 320;
const poolBytes = 128;
/** No character takes more in JSON. */
const maxCharacterBytes = 6;
const maxPools = 512;

interface Wanted {
  readonly stock: Stock;
  readonly wish: LeaseWish;
}

/**
 * Decisions that routers made in advance, for requests that need no more than a pool: taken at
 * once, without a message. A pool's picks come from one router at a time, so that those of several
 * ingresses do not collide. What is wanted in one turn of the event loop is asked for in one
 * message a router.
 */
export class Leases implements Disposable {
  readonly #parts: LeasesParts;
  readonly #routers: Routers;
  /** By `Fleet.poolOf`: as many as there are pools, whatever names clients give. */
  readonly #stocks = new Map<string | null, Stock>();
  #wanted: Wanted[] = [];
  #closed = false;

  constructor(parts: LeasesParts) {
    this.#parts = parts;
    this.#routers = parts.routers;
    parts.load.countLeased(() => this.unused());
  }

  /**
   * A decision for a request of this model that the routing policy keeps internal; undefined: ask
   * for it.
   */
  take(model: string | null): Decision | undefined {
    const now = performance.now();
    const { fleet } = this.#parts;
    const stock = this.#stockOf(fleet.poolOf(model, now), now);
    if (stock === undefined) return undefined;
    const decision = stock.take(fleet, now);
    const wish = stock.wish(now);
    if (wish !== null) this.#want([{ stock, wish }]);
    return decision;
  }

  /** Picks that no request has taken yet, per instance. */
  unused(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    const now = performance.now();
    for (const stock of this.#stocks.values()) stock.countUnused(counts, now);
    return counts;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
  }

  #stockOf(pool: string | null, now: number): Stock | undefined {
    let stock = this.#stocks.get(pool);
    if (stock !== undefined) return stock;
    if (this.#stocks.size >= maxStocks) {
      // Of models that came and went.
      for (const [key, { usedAt }] of this.#stocks) if (now - usedAt >= idleMs) this.#stocks.delete(key);
      if (this.#stocks.size >= maxStocks) return undefined;
    }
    stock = new Stock(pool, (outcome, count) => this.#parts.observer.picks(outcome, count));
    this.#stocks.set(pool, stock);
    return stock;
  }

  #want(wanted: readonly Wanted[]): void {
    this.#wanted.push(...wanted);
    if (this.#wanted.length === wanted.length) setImmediate(() => this.#askAll());
  }

  #askAll(): void {
    const wanted = this.#wanted;
    this.#wanted = [];
    const now = performance.now();
    const generation = this.#parts.generation();
    const owners = Map.groupBy(wanted, ({ wish }) => this.#routers.ownerOf(poolName(wish.model), generation, now));
    const maxBytes = this.#parts.bus.maxBytes - envelopeBytes;
    for (const [owner, all] of owners) {
      if (owner === undefined || this.#closed) {
        for (const each of all) this.#fill(each, [], now);
        continue;
      }
      for (const part of inParts(all, wantedBytes, maxBytes)) {
        for (let at = 0; at < part.length; at += maxPools)
          void this.#ask({ owner, generation }, part.slice(at, at + maxPools));
      }
    }
  }

  /** Never rejects. */
  async #ask({ owner, generation }: { owner: string; generation: string }, wanted: readonly Wanted[]): Promise<void> {
    const { ingress, bus, load, timeoutMs, observer, notes } = this.#parts;
    const askedAtMs = performance.now();
    const pools = wanted.map(({ wish }) => wish);
    try {
      const reply = await bus.request(routeLease, { ingress, generation, pools }, { timeoutMs, owner });
      load.saw(reply.router, reply.sequence);
      for (const [at, each] of wanted.entries()) {
        const lease = reply.generation === generation ? reply.leases[at] : undefined;
        const candidates = lease === undefined ? [] : this.#candidates(each.wish, lease);
        if (notes?.on) {
          const by = { by: reply.router, inAdvance: true };
          for (const { decision } of candidates) notes.note(decision, by);
        }
        this.#fill(each, candidates, askedAtMs + reply.validMs);
      }
    } catch (error) {
      if (isAway(error)) {
        // The next in the order is asked, until one answers or none is left.
        this.#routers.drop(owner);
        this.#want(wanted);
        return;
      }
      for (const { stock } of wanted) {
        observer.leaseEnded('failed');
        stock.fill([], { until: 0, now: performance.now() });
      }
    }
  }

  #fill({ stock }: Wanted, candidates: readonly Candidate[], until: number): void {
    this.#parts.observer.leaseEnded(candidates.length === 0 ? 'empty' : 'granted');
    stock.fill(candidates, { until, now: performance.now() });
  }

  /**
   * A router that is a moment ahead names instances that are not here yet; one that lies could name
   * any address.
   */
  #candidates(wish: LeaseWish, { instances, picks }: LeaseReply['leases'][number]): readonly Candidate[] {
    const { fleet, observer } = this.#parts;
    const own = instances.map((given) => fleet.candidate(given, wish));
    const candidates = picks.slice(0, wish.count).flatMap((pick) => own[pick] ?? []);
    const skipped = picks.length - candidates.length;
    if (skipped > 0) observer.picks('skipped', skipped);
    return candidates;
  }
}

/** Maximum size of a request for one pool, or of its answer. */
function wantedBytes({ wish: { model, count } }: Wanted): number {
  return poolBytes + maxCharacterBytes * (model?.length ?? 0) + pickBytes * count;
}
