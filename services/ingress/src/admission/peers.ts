import type { QueueReport, Role } from '@llm-gateway/protocol';
import { fairShare, Members } from '@llm-gateway/quota';

/** What is not repeated for so long is over: reports come each second, and on each change. */
const silentMs = 3500;
/** What cannot be divided goes to the next one so often. */
const turnMs = 1000;
/** Time after which the others have received our report and sent theirs. */
const settleMs = 20;
/** So long after a pause there may still be reports to read that came in the meantime. */
const backlogMs = 100;
/** Gauges kept over all ingresses: who may publish may invent pools. */
const maxGauges = 20_000;

/** The places of one role for the models of one group. */
export interface PlaceKind {
  readonly role: Role;
  readonly model: string | null;
}

interface Gauge {
  readonly held: number;
  readonly wanted: number;
  readonly heardAt: number;
}

/** When something is looked at, and what this ingress holds and wants then. */
export interface Moment {
  readonly demand: number;
  /** Monotonic milliseconds. */
  readonly now: number;
  /** Milliseconds since 1970, about the same everywhere. */
  readonly epochMs: number;
  /** Whether the others can be heard at all. */
  readonly connected: boolean;
}

/** What this ingress told of itself in the last moments. */
class Told {
  /** The oldest first; the first one may be older than those moments. */
  #entries: { readonly at: number; readonly demand: number }[] = [];

  add(demand: number, now: number): void {
    this.#entries.push({ at: now, demand });
    const current = this.#entries.findLastIndex(({ at }) => at <= now - settleMs);
    if (current > 0) this.#entries = this.#entries.slice(current);
  }

  /** What all have known it to hold and want for long enough. */
  settled(now: number): number {
    const [first] = this.#entries;
    if (first === undefined || first.at > now - settleMs) return 0;
    let least = Number.POSITIVE_INFINITY;
    for (const [at, { demand }] of this.#entries.entries()) {
      const next = this.#entries[at + 1];
      if (next === undefined || next.at > now - settleMs) least = Math.min(least, demand);
    }
    return least;
  }
}

/**
 * What the ingresses hold of the places at instances and want of them, and how much of them is this
 * ingress's.
 */
export class Peers {
  readonly #self: string;
  readonly #members = new Members();
  readonly #gauges = new Map<string, Map<string, Gauge>>();
  readonly #told = new Map<string, Told>();
  /** Those that have reported nothing since this ingress could not hear them. */
  readonly #unheard = new Set<string>();
  #deafUntil = Number.NEGATIVE_INFINITY;
  #size = 0;

  constructor(self: string) {
    this.#self = self;
  }

  /** This ingress has told all others so. */
  told(kind: PlaceKind, demand: number, now: number): void {
    const key = keyOf(kind);
    let told = this.#told.get(key);
    if (told === undefined) {
      told = new Told();
      this.#told.set(key, told);
    }
    told.add(demand, now);
  }

  /** There is nothing to tell of it any more. */
  drop(kind: PlaceKind): void {
    this.#told.delete(keyOf(kind));
  }

  /** @returns whether its ingress was unknown before; our own reports are ignored */
  hear({ ingress, pools }: QueueReport, now: number): boolean {
    if (ingress === this.#self) return false;
    this.#checkPause(now);
    if (now >= this.#deafUntil) this.#unheard.delete(ingress);
    const isNew = !this.#members.has(ingress, now);
    this.#members.hear(ingress, now);
    for (const { role, model, held, wanted } of pools) {
      const key = keyOf({ role, model });
      let gauges = this.#gauges.get(key);
      if (held + wanted === 0) {
        if (gauges?.delete(ingress)) this.#size--;
        continue;
      }
      if (gauges?.has(ingress) !== true) {
        if (this.#size >= maxGauges) continue;
        this.#size++;
      }
      if (gauges === undefined) {
        gauges = new Map();
        this.#gauges.set(key, gauges);
      }
      gauges.set(ingress, { held, wanted, heardAt: now });
    }
    return isNew;
  }

  /** How many ingresses share the places, this one among them. */
  count(now: number): number {
    this.#checkPause(now);
    return this.#members.names(now).length + 1;
  }

  /**
   * Nobody can be heard: whoever was there stays, and what they told is old until they tell
   * something again.
   */
  lost(now: number): void {
    this.#members.excuse(now);
    this.#told.clear();
    for (const name of this.#members.names(now)) this.#unheard.add(name);
  }

  /** To be called each second: forgets what was not repeated. */
  sweep(now: number): void {
    this.#checkPause(now);
    this.#members.tick(now);
    const present = new Set(this.#members.names(now));
    for (const name of this.#unheard) if (!present.has(name)) this.#unheard.delete(name);
    for (const [key, gauges] of this.#gauges) {
      for (const [ingress, { heardAt }] of gauges) {
        if (now - heardAt < silentMs) continue;
        gauges.delete(ingress);
        this.#size--;
      }
      if (gauges.size === 0) this.#gauges.delete(key);
    }
  }

  /** What the others hold, as far as they can be heard. */
  heldByOthers(kind: PlaceKind, now: number): number {
    let held = 0;
    for (const gauge of this.#gauges.get(keyOf(kind))?.values() ?? []) {
      if (now - gauge.heardAt < silentMs) held += gauge.held;
    }
    return held;
  }

  /**
   * Of so many places this ingress may hold as many: its fair share by what all have told, and
   * never what others hold. More than an equal part it takes only by what it told a moment ago, so
   * that two that begin at once do not both take all that is free. While nobody can be heard it is
   * an equal part, and afterwards until all that were there have told what they hold by then, or
   * are forgotten.
   */
  allowance(kind: PlaceKind, places: number, { demand, now, epochMs, connected }: Moment): number {
    this.#checkPause(now);
    const others = this.#members.names(now);
    if (others.length === 0) return places;
    const all = [...others, this.#self].sort();
    const place = { own: all.indexOf(this.#self), turn: Math.floor(epochMs / turnMs) };
    const nothing = all.map(() => 0);
    const equal = fairShare(places, nothing, place);
    if (!connected) return equal;
    const key = keyOf(kind);
    const gauges = this.#gauges.get(key);
    let heldByOthers = 0;
    const demands = all.map((name) => {
      if (name === this.#self) return this.#told.get(key)?.settled(now) ?? 0;
      const gauge = gauges?.get(name);
      if (gauge === undefined || now - gauge.heardAt >= silentMs) return 0;
      heldByOthers += gauge.held;
      return gauge.held + gauge.wanted;
    });
    const free = Math.max(0, places - heldByOthers);
    if (others.some((name) => this.#unheard.has(name))) return Math.min(equal, free);
    const settled = fairShare(places, demands, place);
    const current = fairShare(places, demands.with(place.own, demand), place);
    return Math.min(Math.max(settled, Math.min(current, equal)), free);
  }

  /** A process that did not run for a while knows as little of the others as one without a bus. */
  #checkPause(now: number): void {
    if (!this.#members.wasAway(now)) return;
    this.lost(now);
    this.#deafUntil = now + backlogMs;
  }
}

function keyOf({ role, model }: PlaceKind): string {
  return model === null ? role : `${role} ${model}`;
}
