import { redisRefusal, type StoreTrouble } from './refusal.ts';

/** What Redis says of itself in `INFO`. Counters run from its start. */
export interface RedisInfo {
  readonly isReplica: boolean;
  readonly evictedKeys: number;
  /** How often it refused a command of anybody. Redis counts this from 6.2 on. */
  readonly refused: ReadonlyMap<StoreTrouble, number>;
}

/** Reads the text of `INFO`; what it lacks is zero. */
export function readRedisInfo(text: string): RedisInfo {
  const refused = new Map<StoreTrouble, number>();
  for (const [, code = '', times] of text.matchAll(/^errorstat_([A-Z]{1,20}):count=(\d{1,15})/gm)) {
    const refusal = redisRefusal(code);
    if (refusal) refused.set(refusal, (refused.get(refusal) ?? 0) + Number(times));
  }
  const [, evicted = '0'] = /^evicted_keys:(\d{1,15})/m.exec(text) ?? [];
  return { isReplica: /^role:slave\r?$/m.test(text), evictedKeys: Number(evicted), refused };
}

/** What happened between two looks at one Redis. */
export function redisTroubles(before: RedisInfo | null, now: RedisInfo): StoreTrouble[] {
  const troubles = new Set<StoreTrouble>();
  if (now.isReplica) troubles.add('read_only');
  if (before) {
    for (const [refusal, times] of now.refused) if (times > (before.refused.get(refusal) ?? 0)) troubles.add(refusal);
    if (now.evictedKeys > before.evictedKeys) troubles.add('evicts');
  }
  return [...troubles];
}
