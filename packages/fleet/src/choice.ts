import {
  type Ask,
  type AskedPrompt,
  type Expectation,
  type InstanceAddress,
  type Role,
  servedModels,
} from '@llm-gateway/protocol';
import type { Caches } from './caches.ts';
import type { ReplyTo } from './load-ledger.ts';
import type { Member } from './member.ts';
import type { Membership } from './membership.ts';
import type { Pool } from './pool.ts';
import type { Pools } from './pools.ts';
import type { Recovery } from './recovery.ts';
import {
  avoidedScore,
  busyScore,
  excludedScore,
  impossibleScore,
  lackingBytes,
  promptBytes,
  type Scores,
} from './scores.ts';

/**
 * So many instances are asked at most whether this prompt fits into their memory; further ones are
 * taken to have room.
 */
const maxRoomChecks = 8;
/** A fully cached prompt is not for nothing. */
const minWaitingBytes = 64;
/**
 * An instance takes a session of its own as long as it has at most so much more in flight than the
 * mean, and one.
 */
const affinityLoadFactor = 1.25;

/** What of an ask the choice of one instance depends on. */
export type Wish = Pick<Ask, 'model' | 'excluded' | 'avoided' | 'prompt'>;

export interface ChoiceContext {
  /** Monotonic milliseconds. */
  readonly now: number;
  /**
   * Whom the reply goes to and its sequence, see `loadReport.seen`; left out when the caller keeps
   * its own counts.
   */
  readonly reply?: ReplyTo;
}

export interface Choice {
  readonly member: Member;
  /** Null for policies that ignore caches. */
  readonly expected: Expectation | null;
}

/** A prefill instance and its decode instance; null: chosen after the prefill. */
export interface PairChoice {
  readonly prefill: Choice;
  readonly decode: Member | null;
  /** The model that the prefill instance declares, where the request names none; else empty. */
  readonly model: string;
}

/** What a choice is made of; the caller has brought all of it up to date. */
export interface ChoiceParts {
  readonly members: Membership;
  readonly scores: Scores;
  readonly pools: Pools;
  readonly recovery: Recovery;
  readonly caches: Caches | null;
}

/** Which instance takes a request: the probe of one that is due, else by session, else by score. */
export class Chooser {
  readonly #members: Membership;
  readonly #scores: Scores;
  readonly #pools: Pools;
  readonly #recovery: Recovery;
  readonly #caches: Caches | null;

  constructor({ members, scores, pools, recovery, caches }: ChoiceParts) {
    this.#members = members;
    this.#scores = scores;
    this.#pools = pools;
    this.#recovery = recovery;
    this.#caches = caches;
  }

  choose(role: Role, wish: Wish, context: ChoiceContext): Choice | undefined {
    const pool = this.#pools.of(role, wish.model, context.now);
    // Nothing of the prompt is computed where it is decoded.
    const prompt = role === 'decode' ? undefined : wish.prompt;
    const holders = prompt === undefined ? undefined : this.#caches?.match(prompt);
    const probe = this.probeIn(pool, wish);
    const bySession = probe === undefined ? this.placeBySession(pool, wish, holders) : -1;
    const place = probe !== undefined || bySession !== -1 ? bySession : this.placeByScore(pool, wish, holders);
    const member = probe ?? (place === -1 ? undefined : this.#members.sorted[pool.take(place)]);
    if (member === undefined) return undefined;
    if (probe !== undefined) pool.countProbe();
    if (member.health.state === 'due') {
      member.health.probe(context.now);
      this.#recovery.settle(member, context.now);
    }
    const expected = holders === undefined ? null : this.expect(member, wish.prompt, bySession !== -1, pool);
    if (this.#scores.traits.isCounted && context.reply !== undefined) {
      const waiting =
        prompt === undefined ? 0 : Math.max(promptBytes(prompt) - (expected?.cached ?? 0), minWaitingBytes);
      if (prompt !== undefined) this.#scores.learnPrompt(waiting);
      this.#scores.ledger.choose(member.instance.id, context.reply, { now: context.now, waiting });
    }
    if (holders !== undefined) this.#caches?.place(member.instance.id, context.now);
    return { member, expected };
  }

  /**
   * The two serve the same model, and are different instances where there is a choice: those of a
   * static list have both roles.
   */
  choosePair(wish: Wish, context: ChoiceContext, isStaged: boolean): PairChoice | undefined {
    // Nothing is prefilled that could not be decoded.
    if (this.#pools.of('decode', wish.model, context.now).slots.length === 0) return undefined;
    const prefill = this.choose('prefill', wish, context);
    if (prefill === undefined) return undefined;
    const model = declaredModel(wish, prefill.member);
    if (isStaged) return { prefill, decode: null, model };
    const decode = this.choose('decode', decodeWish(wish, prefill.member), context);
    return decode === undefined ? undefined : { prefill, decode: decode.member, model };
  }

  /** See `Fleet.lease`. */
  lease(pool: Pool, count: number, { now, reply }: ChoiceContext): readonly InstanceAddress[] {
    if (this.#awaitsProbe(pool)) return [];
    const { values, ledger, traits } = this.#scores;
    const picks: InstanceAddress[] = [];
    while (picks.length < count) {
      const member = this.#members.sorted[pool.choose(values)];
      if (member === undefined || (values[member.slot] ?? 0) >= busyScore) break;
      if (traits.isBalanced && reply !== undefined) ledger.lend(member.instance.id, reply, now);
      picks.push(member.address);
    }
    return picks;
  }

  /** What is expected of a member that is chosen; `cached` of the last match. */
  expect(member: Member, prompt: AskedPrompt | undefined, bySession: boolean, pool: Pool): Expectation {
    const { cached, cost } = this.#scores.costOf(member, prompt);
    if (pool.slots.length === 1) return { cached, cost, why: 'only' };
    return { cached, cost, why: bySession ? 'affinity' : cached > 0 ? 'cache' : 'load' };
  }

  /**
   * The member that this request is to be the probe of. A request that has failed before is none:
   * it gets the best there is.
   */
  probeIn(pool: Pool, { excluded, avoided = [] }: Wish): Member | undefined {
    const { due } = this.#recovery;
    if (due.size === 0 || excluded.length > 0 || !pool.mayProbe) return undefined;
    for (const member of due) {
      if (!pool.takes(member.instance) || avoided.includes(member.instance.id)) continue;
      if (this.unpairedIn(pool).includes(member)) continue;
      return member;
    }
    return undefined;
  }

  /**
   * Where nothing of the prompt is known to be cached, the requests of one session go to one
   * instance, as long as that has no more than its share. A place in the pool; -1: by no session.
   */
  placeBySession(pool: Pool, { prompt, excluded, avoided = [] }: Wish, holders?: readonly number[]): number {
    const key = prompt?.affinity;
    const { traits, inFlight, values } = this.#scores;
    if (!traits.isSticky || key === undefined || (holders?.length ?? 0) > 0 || excluded.length + avoided.length > 0)
      return -1;
    let total = 1;
    for (const slot of pool.slots) total += inFlight[slot] as number;
    // One more, so that a fleet at rest does not part two requests of one session.
    const most = Math.ceil((affinityLoadFactor * total) / pool.slots.length) + 1;
    const { sorted } = this.#members;
    const unpaired = this.unpairedIn(pool);
    return pool.bestBy(key, {
      scores: values,
      limit: busyScore,
      hashes: this.#members.hashes,
      hasRoom: (one) => (inFlight[one] as number) < most && !unpaired.includes(sorted[one] as Member),
    });
  }

  /** A place in the pool; -1 when nothing of it can be chosen. */
  placeByScore(pool: Pool, { excluded, avoided = [], prompt }: Wish, holders: readonly number[] = []): number {
    const scores = this.#scores;
    const { weighted } = scores;
    const unpaired = this.unpairedIn(pool);
    const isPriced = prompt !== undefined && scores.traits.isBalanced && holders.length + weighted.size > 0;
    if (excluded.length + avoided.length + unpaired.length === 0 && !isPriced) {
      const place = pool.best(scores.values);
      // What the others would lack makes them no better.
      if (scores.measured === 0 || prompt === undefined || !this.#lacksRoom(pool, place, prompt)) return place;
    }
    const raised = new Set<Member>();
    if (isPriced) {
      // What the prompt costs without a cache is the same for all others, and left out.
      for (const number of holders) {
        const member = this.#members.byNumber(number);
        if (member !== undefined && !weighted.has(member) && !scores.discount(member, prompt)) {
          raised.add(member);
          scores.score(member, prompt);
        }
      }
      for (const member of weighted) {
        raised.add(member);
        scores.score(member, prompt);
      }
    }
    const raise = (member: Member | undefined, score: number): void => {
      if (member === undefined) return;
      raised.add(member);
      scores.raise(member, score);
    };
    // Sets, because what is named twice is not worse for it.
    for (const id of new Set(excluded)) raise(this.#members.get(id), excludedScore);
    for (const id of new Set(avoided)) raise(this.#members.get(id), avoidedScore);
    for (const member of unpaired) raise(member, impossibleScore);
    const lowest = isPriced ? Number.NEGATIVE_INFINITY : 0;
    let place = pool.best(scores.values, lowest);
    if (scores.measured > 0 && prompt !== undefined) {
      // Its score as it stands is for a prompt that fits into its memory. When this one does not,
      // its true score may be higher than that of another; those that are not looked at could only
      // be worse than their scores.
      for (let checks = 0; checks < maxRoomChecks && this.#lacksRoom(pool, place, prompt); checks++) {
        const member = this.#members.sorted[pool.slots[place] as number] as Member;
        if (raised.has(member)) break;
        raised.add(member);
        scores.score(member, prompt);
        place = pool.best(scores.values, lowest);
      }
    }
    for (const member of raised) scores.score(member);
    scores.restore();
    return place;
  }

  /** Members of the pool that may not prefill, because nothing could decode it. */
  unpairedIn(pool: Pool): readonly Member[] {
    return pool.role === 'prefill' && pool.model === null ? this.#members.unpaired : [];
  }

  #awaitsProbe(pool: Pool): boolean {
    const { due } = this.#recovery;
    if (due.size === 0 || !pool.mayProbe) return false;
    for (const member of due) if (pool.takes(member.instance)) return true;
    return false;
  }

  /**
   * Whether not all of the prompt fits into the free memory of the instance that has this place in
   * the pool.
   */
  #lacksRoom(pool: Pool, place: number, prompt: AskedPrompt): boolean {
    const member = this.#members.sorted[pool.slots[place] ?? -1];
    return member !== undefined && lackingBytes(member, promptBytes(prompt)) > lackingBytes(member, 0);
  }
}

/** The model that the prefill instance declares, for a request that names none; else empty. */
function declaredModel(wish: Wish, prefill: Member): string {
  return wish.model ? '' : (servedModels(prefill.instance)?.[0] ?? '');
}

/** What is asked of a decode instance once a prefill is chosen. */
export function decodeWish(wish: Wish, prefill: Member): Wish {
  const model = declaredModel(wish, prefill) || wish.model;
  return { ...wish, model, avoided: [...(wish.avoided ?? []), prefill.instance.id] };
}
