import type { Instance } from '@llm-gateway/protocol';
import type { RecordPlace } from './keeper.ts';
import { encodeRecord, redisKeyPrefix } from './record.ts';
import type { RedisSettings } from './redis.ts';
import { RedisStore } from './redis-store.ts';

/** How long a record stays in Redis after it was written. */
export function redisKeptMs(ttlMs: number): number {
  return 2 * ttlMs;
}

/**
 * A pod's record in Redis: one value that runs out after two TTLs, so that nothing stays of a pod
 * that could not clean up.
 */
export class RedisPlace implements RecordPlace {
  /** Each heartbeat writes the record anew. */
  readonly renewal = null;
  readonly #podName: string;
  readonly #key: string;
  readonly #ttlMs: number;
  readonly #store: RedisStore;

  constructor(podName: string, settings: RedisSettings & { ttlMs: number }) {
    this.#podName = podName;
    this.#key = `${redisKeyPrefix(settings.namespace)}${podName}`;
    this.#ttlMs = settings.ttlMs;
    this.#store = new RedisStore(settings);
  }

  async put(instances: readonly Instance[]): Promise<void> {
    const value = encodeRecord(this.#podName, Date.now(), instances);
    await this.#store.atKey((redis) => redis.set(this.#key, value, 'PX', redisKeptMs(this.#ttlMs)));
  }

  async remove(): Promise<void> {
    await this.#store.atKey((redis) => redis.del(this.#key));
  }

  onDoubt(listener: () => void): void {
    this.#store.onConnection((isConnected) => isConnected && listener());
  }

  [Symbol.dispose](): void {
    this.#store[Symbol.dispose]();
  }
}
