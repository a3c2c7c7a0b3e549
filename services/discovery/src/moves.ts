import type { Instance } from '@llm-gateway/protocol';

/**
 * How a pod changed its address. Two pods of one name overwrite each other's record, so that it
 * goes to and fro.
 */
export interface Moves {
  /** Its instances before the last move; null: it never moved. */
  readonly from: readonly Instance[] | null;
  readonly atMs: number;
  /** Up to when its name counts as that of two pods. */
  readonly sharedUntilMs: number;
}

export const unmoved: Moves = { from: null, atMs: 0, sharedUntilMs: 0 };

/**
 * The next moves of a pod that held the instances `before` and holds `now`. A pod that is replaced
 * moves once; one that is back where it was within `windowMs` shares its name, and does so until it
 * has not moved for as long.
 */
export function moved(
  moves: Moves,
  {
    before,
    now,
    atMs,
    windowMs,
  }: { before: readonly Instance[]; now: readonly Instance[]; atMs: number; windowMs: number },
): Moves {
  if (!isElsewhere(before, now)) return moves;
  const back = moves.from !== null && atMs - moves.atMs <= windowMs && !isElsewhere(moves.from, now);
  return { from: before, atMs, sharedUntilMs: back ? atMs + windowMs : moves.sharedUntilMs };
}

/**
 * Whether an instance of one is at another address in the other. Ranks that come and go are no
 * move.
 */
function isElsewhere(some: readonly Instance[], others: readonly Instance[]): boolean {
  if (some === others) return false;
  const known = new Map(some.map((instance) => [instance.id, instance]));
  return others.some(({ id, host, port }) => {
    const old = known.get(id);
    return old !== undefined && (old.host !== host || old.port !== port);
  });
}
