/** What an ingress does without a limiter: so large a share of each limit is its own. */
export interface Share {
  readonly ingresses: number;
  /** Its place among them, from 0: the first ones have what does not divide. */
  readonly rank: number;
}

/** The shares of all ingresses add up to the limit. */
export function shareOf(limit: number, { ingresses, rank }: Share): number {
  return Math.floor(limit / ingresses) + (rank < limit % ingresses ? 1 : 0);
}

/**
 * What one of several processes may hold of a capacity, by max-min fairness: who wants less than an
 * equal part gets what it wants, the others share the rest equally. What is left over is shared
 * too, so that each may begin without asking. The shares of all who know the same demands and the
 * same `turn` add up to the capacity.
 *
 * @param capacity a whole number
 * @param demands what each of them holds and wants, in an order that they agree on
 * @param options.own its place in that order
 * @param options.turn says who gets of what cannot be divided; it moves on with time, so that
 * nobody is left out
 */
export function fairShare(
  capacity: number,
  demands: readonly number[],
  { own, turn }: { own: number; turn: number },
): number {
  const demand = demands[own] ?? 0;
  let left = capacity;
  let sharers = demands.length;
  // The water level rises: those below it are served in full, the least demand first.
  let level = 0;
  for (const wanted of demands.toSorted((a, b) => a - b)) {
    if (wanted * sharers > left) break;
    level = wanted;
    left -= wanted;
    sharers--;
  }
  if (sharers === 0) return demand + part(left, demands.length, own + turn);
  if (demand <= level) return demand;
  const rank = demands.slice(0, own).filter((wanted) => wanted > level).length;
  return part(left, sharers, rank + turn);
}

/** One of `count` parts that add up to `amount`. */
function part(amount: number, count: number, rank: number): number {
  return Math.floor(amount / count) + (rank % count < amount % count ? 1 : 0);
}
