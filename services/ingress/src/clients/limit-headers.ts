import { quotaResources } from '@llm-gateway/protocol';
import type { Purse } from '@llm-gateway/quota';

/** Names that an upstream's answer must not set where clients have limits. */
export const limitHeaderNames = ['limit', 'remaining', 'reset'].flatMap((word) => [
  `x-ratelimit-${word}-requests`,
  `x-ratelimit-${word}-tokens`,
]);

/** Header lines, each with its CR LF: what a client may still spend. */
export function limitLines(purse: Purse): string {
  const now = performance.now();
  let lines = '';
  for (const at of [0, 1] as const) {
    const limit = purse.limits[at];
    if (limit === null) continue;
    const what = quotaResources[at];
    const left = Math.min(limit, purse.remaining(at));
    const reset = Math.ceil(purse.resetMs(at, now)) / 1000;
    lines += `x-ratelimit-limit-${what}: ${limit}\r\nx-ratelimit-remaining-${what}: ${left}\r\n`;
    lines += `x-ratelimit-reset-${what}: ${reset}s\r\n`;
  }
  return lines;
}
