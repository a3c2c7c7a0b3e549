import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits until `condition` returns something truthy and returns that. A condition that throws counts
 * as not yet true, so assertions may stand inside it; the last one is the cause of the error after
 * `timeoutMs` (10 s).
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: { timeoutMs?: number; intervalMs?: number; what?: string } = {},
): Promise<Exclude<T, false | null | undefined | 0 | ''>> {
  const { timeoutMs = 10_000, intervalMs = 10, what = String(condition) } = options;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    let cause: unknown;
    try {
      const value = await condition();
      if (value) return value as Exclude<T, false | null | undefined | 0 | ''>;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadline) {
      const why = cause instanceof Error ? `: ${cause.message}` : '';
      throw new Error(`not within ${timeoutMs} ms: ${what}${why}`, { cause });
    }
    await sleep(intervalMs);
  }
}
