export interface BackoffRules {
  readonly initDelayMs: number;
  readonly maxDelayMs: number;
}

/**
 * Delays are spread over ± this share, so that jobs that were refused together do not come back
 * together.
 */
const jitter = 0.1;
/** Beyond every maximum; without it 0 · 2^calls is not a number at last. */
const maxDoublings = 50;

/**
 * The wait before the next call of a job after `calls` others: min(init · 2^calls, max) ± 10 %, or
 * what the endpoint asked for when that is longer. What it asked for is spread upwards only: coming
 * back too early would be the next 429.
 * @param random gives numbers from 0 up to 1
 */
export function backoffMs(
  calls: number,
  { initDelayMs, maxDelayMs }: BackoffRules,
  { retryAfterMs, random }: { retryAfterMs: number | null; random: () => number },
): number {
  const delayMs = Math.min(initDelayMs * 2 ** Math.min(calls, maxDoublings), maxDelayMs);
  const spread = random();
  if (retryAfterMs !== null && retryAfterMs > delayMs) return retryAfterMs * (1 + jitter * spread);
  return Math.max(delayMs * (1 - jitter + 2 * jitter * spread), retryAfterMs ?? 0);
}
