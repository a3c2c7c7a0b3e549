import { type AskedPrompt, type EngineFigures, isTakenOut } from '@llm-gateway/protocol';
import type { Caches } from './caches.ts';
import { EngineLoad, type EngineReportResult } from './engine-load.ts';
import { LoadLedger } from './load-ledger.ts';
import type { Member } from './member.ts';
import type { Membership } from './membership.ts';
import type { PolicyTraits } from './policy.ts';

/**
 * Weight of a request in flight, in prompt bytes to compute before a first token. Its
 * decode takes time from a prefill, but little: the unit of load is a request, and this many bytes
 * are as much as one.
 */
const requestBytes = 256;
/**
 * A prompt of somebody else is taken to be as long as ours were on average; this long before there
 * was one.
 */
const firstMeanPromptBytes = 2048;
/** The mean follows about so many of the last prompts. */
const meanPrompts = 64;
/** What an ask says is bounded, so that no prompt makes a live instance look busy. */
const maxPromptBytes = 2 ** 30;

/**
 * A score is the load (0 in turn) plus these, so that one scan for the lowest score prefers in this order:
 * live, busy, what the request avoids, suspect, ejected, and what it has already failed on.
 */
export const busyScore = 2 ** 31;
export const avoidedScore = 2 ** 32;
export const suspectScore = 2 ** 33;
const ejectedScore = 2 ** 34;
export const excludedScore = 2 ** 35;
/** The load of an instance never makes it worse than one that is busy. */
const maxLoadScore = busyScore - 1;
/** Is never chosen. */
export const impossibleScore = Number.POSITIVE_INFINITY;

/** In bytes of prompts that are computed before a first token. */
export interface Cost {
  /** Of the prompt that `Caches.match` was last asked for. */
  readonly cached: number;
  /** For others, and for what the engine would give up from its memory. */
  readonly elsewhere: number;
  /** All together. */
  readonly cost: number;
}

/**
 * What each instance has to do, as one number to choose by: the lower, the better. A score is kept
 * by slot and changed with what it is made of, so that a choice only compares numbers.
 */
export class Scores {
  readonly traits: PolicyTraits;
  readonly ledger: LoadLedger;
  readonly #members: Membership;
  readonly #caches: Caches | null;
  /** By slot. */
  values = new Float64Array(0);
  /** Requests at each instance, those of others included; by slot. */
  inFlight = new Float64Array(0);
  /** How many members say how much memory they have left. */
  measured = 0;
  /** Members whose load counts for more than it is. */
  readonly weighted = new Set<Member>();
  /**
   * Slots whose scores are lowered for the prompt that is being decided, and their scores before.
   */
  readonly #discounted: readonly [slots: number[], before: number[]] = [[], []];
  #meanPromptBytes = firstMeanPromptBytes;

  /** `self` is the router id in the replies that the ledger counts choices by. */
  constructor(members: Membership, options: { traits: PolicyTraits; caches: Caches | null; self: string }) {
    this.#members = members;
    this.traits = options.traits;
    this.#caches = options.caches;
    this.ledger = new LoadLedger(options.self, (id) => {
      const member = members.get(id);
      if (member === undefined) return;
      member.engine?.observe(this.ledger.inFlight(id));
      this.score(member);
    });
  }

  /** Scores all members, which have new slots. */
  rebuild(): void {
    const { sorted } = this.#members;
    this.values = new Float64Array(sorted.length);
    this.inFlight = new Float64Array(sorted.length);
    this.weighted.clear();
    this.measured = 0;
    for (const member of sorted) {
      this.measured += Number(member.engine?.isMeasured ?? false);
      this.score(member);
    }
  }

  /**
   * Takes what has changed of a member into its score. With a prompt: what the instance has to
   * compute for it, compared with one that has nothing of it.
   */
  score(member: Member, prompt?: AskedPrompt): void {
    if (this.#members.isStale) return;
    const { health } = member;
    if (isTakenOut(member.instance)) {
      this.values[member.slot] = impossibleScore;
      return;
    }
    let score = 0;
    if (this.traits.isCounted) {
      const { id } = member.instance;
      const inFlight = this.ledger.inFlight(id);
      const { engine } = member;
      this.inFlight[member.slot] = inFlight + (engine?.others ?? 0);
      if (this.traits.isBalanced) {
        const bytes = prompt === undefined ? 0 : promptBytes(prompt);
        const cached = prompt === undefined ? 0 : this.#cachedOf(member, bytes);
        const uncached = bytes - cached;
        const waiting = this.ledger.waiting(id);
        member.waitingBytes = waiting;
        const work = waiting + uncached + member.elsewhereBytes + lackingBytes(member, uncached);
        const load = (inFlight + work / requestBytes) * health.ramp;
        score = Math.min((load + 1) * health.penalty - 1, maxLoadScore) - bytes / requestBytes;
        if (health.ramp > 1 || health.penalty > 1) this.weighted.add(member);
        else this.weighted.delete(member);
      }
    }
    if (health.state !== 'live') score += health.spared ? ejectedScore : suspectScore;
    if (health.busyUntil > 0) score += busyScore;
    this.values[member.slot] = score;
  }

  /**
   * Takes off a score what of the prompt is cached there, which is all that the prompt changes of
   * the score of most holders. False: more is, and it has to be scored anew.
   */
  discount(member: Member, prompt: AskedPrompt): boolean {
    const bytes = promptBytes(prompt);
    const cached = this.#cachedOf(member, bytes);
    if (lackingBytes(member, bytes - cached) > 0) return false;
    const score = this.values[member.slot] as number;
    this.#discounted[0].push(member.slot);
    this.#discounted[1].push(score);
    this.values[member.slot] = score - cached / requestBytes;
    return true;
  }

  /** Takes back all discounts. */
  restore(): void {
    const [slots, before] = this.#discounted;
    for (let at = slots.length - 1; at >= 0; at--) this.values[slots[at] as number] = before[at] as number;
    slots.length = 0;
    before.length = 0;
  }

  /** Makes a score worse until the member is scored again. */
  raise(member: Member, by: number): void {
    this.values[member.slot] = (this.values[member.slot] ?? 0) + by;
  }

  costOf(member: Member, prompt: AskedPrompt | undefined): Cost {
    const { id } = member.instance;
    const bytes = prompt === undefined ? 0 : promptBytes(prompt);
    const cached = prompt === undefined ? 0 : this.#cachedOf(member, bytes);
    const elsewhere = member.elsewhereBytes + lackingBytes(member, bytes - cached);
    const own = bytes - cached + this.ledger.waiting(id) + requestBytes * this.ledger.inFlight(id);
    return { cached, elsewhere, cost: own + elsewhere };
  }

  /** A prompt of so many bytes to be computed was chosen for. */
  learnPrompt(bytes: number): void {
    this.#meanPromptBytes += (bytes - this.#meanPromptBytes) / meanPrompts;
  }

  /** The score is not brought up to date: that is for who settles the member. */
  takeEngineReport(
    member: Member,
    { reporter, figures }: { reporter: string; figures: EngineFigures },
    now: number,
  ): Exclude<EngineReportResult, 'unknown_instance'> {
    const { id } = member.instance;
    member.engine ??= new EngineLoad();
    const { engine } = member;
    if (!engine.accepts(reporter, now)) return 'other_reporter';
    const measured = Number(engine.isMeasured);
    const isAnew = engine.take(reporter, figures, { inFlight: this.ledger.inFlight(id), now });
    this.measured += Number(engine.isMeasured) - measured;
    // What it had cached was of the process before.
    if (isAnew) this.#caches?.empty(id);
    if (engine.capacityBytes > 0) this.#caches?.learnCapacity(id, engine.capacityBytes);
    this.#weigh(member, engine);
    return 'taken';
  }

  /** Drops an outdated engine report. */
  expireEngine(member: Member, now: number): void {
    const { engine } = member;
    if (engine === null || now < engine.expiryAt) return;
    this.measured -= Number(engine.isMeasured);
    engine.forget();
    this.#weigh(member, engine);
  }

  /**
   * What the engine does for others: their requests as ours, and prompts that nobody measured as
   * the mean of ours.
   */
  #weigh(member: Member, { others, othersWaiting, preempted }: EngineLoad): void {
    member.elsewhereBytes = requestBytes * others + this.#meanPromptBytes * (othersWaiting + preempted);
  }

  #cachedOf(member: Member, bytes: number): number {
    return Math.min(this.#caches?.cached(member.number) ?? 0, bytes);
  }
}

/**
 * Bytes of prompts, those that wait there and so many more, for which its engine has no memory
 * left. It makes room by giving up as much of what it has computed, which it computes again.
 */
export function lackingBytes({ engine, waitingBytes }: Member, bytes: number): number {
  return engine === null ? 0 : Math.max(0, waitingBytes + bytes - engine.freeBytes);
}

export function promptBytes({ bytes }: AskedPrompt): number {
  return Math.min(bytes, maxPromptBytes);
}
