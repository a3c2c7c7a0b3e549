import {
  type ExplainedCandidate,
  type ExplainedPool,
  type Instance,
  isTakenOut,
  type Role,
} from '@llm-gateway/protocol';
import { type ChoiceParts, type Chooser, decodeWish, type Wish } from './choice.ts';
import type { FleetMode } from './mode.ts';
import type { Pool } from './pool.ts';
import { excludedScore, impossibleScore } from './scores.ts';

export interface ExplainOptions {
  readonly now: number;
  /** Candidates of each pool. */
  readonly max: number;
}

/** See `Fleet.explain`. */
export function explainChoice(
  parts: ExplainParts,
  wish: Wish,
  { mode, ...options }: ExplainOptions & { readonly mode: FleetMode },
): readonly ExplainedPool[] {
  if (mode === 'neutral') return [explainPool(parts, 'neutral', { wish, ...options })];
  const prefill = explainPool(parts, 'prefill', { wish, ...options });
  const member = prefill.chosen === null ? undefined : parts.members.get(prefill.chosen);
  const decode = explainPool(parts, 'decode', {
    wish: member === undefined ? wish : decodeWish(wish, member),
    ...options,
  });
  // Nothing is prefilled that could not be decoded.
  return decode.chosen === null ? [{ ...prefill, chosen: null }, decode] : [prefill, decode];
}

export interface ExplainParts extends ChoiceParts {
  readonly chooser: Chooser;
}

function explainPool(
  { members, scores, pools, caches, chooser }: ExplainParts,
  role: Role,
  { wish, now, max }: ExplainOptions & { readonly wish: Wish },
): ExplainedPool {
  const { isCounted, isBalanced } = scores.traits;
  const pool = pools.of(role, wish.model, now);
  const prompt = role === 'decode' ? undefined : wish.prompt;
  const holders = prompt === undefined ? undefined : caches?.match(prompt);
  const probe = chooser.probeIn(pool, wish);
  const bySession = probe === undefined ? chooser.placeBySession(pool, wish, holders) : -1;
  const place = bySession === -1 ? chooser.placeByScore(pool, wish, holders) : bySession;
  const chosen = probe ?? (place === -1 ? undefined : members.sorted[pool.slots[place] as number]);
  const unpaired = chooser.unpairedIn(pool);
  const failed = new Set([...wish.excluded, ...(wish.avoided ?? [])]);
  const ranked = members.sorted.map((member) => {
    const { instance } = member;
    const out = outOf(instance, pool, unpaired.includes(member));
    scores.score(member, prompt);
    const score = out === undefined ? (scores.values[member.slot] ?? 0) : impossibleScore;
    scores.score(member);
    return { member, out, score: failed.has(instance.id) ? score + excludedScore : score };
  });
  ranked.sort((a, b) => Number(b.member === chosen) - Number(a.member === chosen) || order(a.score, b.score));
  const why =
    probe !== undefined
      ? 'probe'
      : chosen === undefined || !isCounted
        ? 'turn'
        : chooser.expect(chosen, prompt, bySession !== -1, pool).why;
  return {
    role,
    model: pool.model,
    chosen: chosen?.instance.id ?? null,
    why,
    total: ranked.length,
    candidates: ranked.slice(0, max).map(({ member, out }): ExplainedCandidate => {
      const { cached, elsewhere, cost } = scores.costOf(member, prompt);
      const { id } = member.instance;
      const factor = member.health.ramp * member.health.penalty;
      return {
        instance: id,
        state: member.health.condition(now),
        ...(out !== undefined && { out }),
        ...(isCounted && { inFlight: scores.ledger.inFlight(id) }),
        ...(isBalanced && { waiting: scores.ledger.waiting(id), cached, cost }),
        ...(isBalanced && elsewhere > 0 && { elsewhere: Math.round(elsewhere) }),
        ...(isBalanced && factor > 1 && { factor: Math.round(factor * 100) / 100 }),
      };
    }),
  };
}

/** Why a pool cannot choose an instance; undefined: it can. */
function outOf(instance: Instance, pool: Pool, isUnpaired: boolean): ExplainedCandidate['out'] {
  if (isTakenOut(instance)) return instance.order?.kind === 'drain' ? 'drain' : 'eject';
  if (!instance.roles.includes(pool.role)) return 'role';
  if (!pool.serves(instance)) return 'model';
  return isUnpaired ? 'no_decode' : undefined;
}

/** Also of what is infinite. */
function order(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
