import { quotaResources } from '@llm-gateway/protocol';
import type { Purse } from '@llm-gateway/quota';

/** Names that an upstream's answer must not set where clients have limits. */
export const limitHeaderNames = ['limit', 'remaining', 'reset'].flatMap((word) => [
  `x-ratelimit-${word}-requests`,
  `x-ratelimit-${word}-tokens`,
]);

/** Header lines with CR LF: the client's remaining limits. */
export function limitLines(purse: Purse): string {
  const now = performance.now();
  return linesOf(purse, 0, now) + linesOf(purse, 1, now);
}

function linesOf(purse: Purse, at: 0 | 1, now: number): string {
  const limit = purse.limits[at];
  if (limit === null) return '';
  const what = quotaResources[at];
  const left = Math.min(limit, purse.remaining(at));
  const reset = Math.ceil(purse.resetMs(at, now)) / 1000;
  return (
    `x-ratelimit-limit-${what}: ${limit}\r\nx-ratelimit-remaining-${what}: ${left}\r\n` +
    `x-ratelimit-reset-${what}: ${reset}s\r\n`
  );
}
