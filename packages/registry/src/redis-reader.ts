import { GatewayError } from '@llm-gateway/protocol';
import type { Redis } from 'ioredis';
import { asGatewayError } from './gateway-error.ts';
import { Pause } from './pause.ts';
import { decodeRecord, type PodRecord, redisKeyPrefix, type SkipReason } from './record.ts';
import type { RedisLink, RedisSettings } from './redis.ts';
import { type RedisInfo, readRedisInfo, redisTroubles } from './redis-info.ts';
import { redisKeptMs } from './redis-place.ts';
import { answerOf, isRedirected, RedisStore } from './redis-store.ts';
import type { StoreTrouble } from './refusal.ts';
import type { ReaderSink, StoreReader } from './store.ts';

/** Keys looked at per SCAN: large, for each call is a round trip. */
const scanCount = 1000;
/** Values read at once: Redis blocks other clients meanwhile. */
const valuesPerRead = 500;

interface Known {
  readonly value: Buffer | null;
  readonly record: PodRecord | null;
}

/**
 * Polls Redis. Nothing is ever written to it: records that expired are their writers' to remove.
 */
export class RedisReader implements StoreReader {
  readonly intervalMs: number;
  readonly ttlMs: number;
  readonly #prefix: string;
  readonly keptMs: number;
  readonly leases = false;
  readonly #store: RedisStore;
  readonly #sink: ReaderSink;
  readonly #pause = new Pause();
  readonly #finished: Promise<void>;
  #closed = false;
  /**
   * Values as last read. Most do not change from one poll to the next, and those are not decoded
   * again.
   */
  #known: ReadonlyMap<string, Known> = new Map();
  #away = false;
  /** Of the store, at the last poll that worked. */
  #connections = 0;
  #tellsTime = true;
  #tellsInfo = true;
  /** What each server said of itself at the last poll. */
  #infos: ReadonlyMap<RedisLink, RedisInfo> = new Map();

  constructor(settings: RedisSettings & { ttlMs: number; intervalMs: number }, sink: ReaderSink) {
    this.intervalMs = settings.intervalMs;
    this.ttlMs = settings.ttlMs;
    this.#prefix = redisKeyPrefix(settings.namespace);
    this.keptMs = redisKeptMs(settings.ttlMs);
    this.#store = new RedisStore(settings);
    this.#sink = sink;
    // A Redis that is gone is noticed at once, not at the next poll.
    this.#store.onConnection((isConnected) => isConnected || this.#pause.ring());
    this.#finished = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#store[Symbol.dispose]();
    this.#pause.ring();
    await this.#finished;
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const startedMs = performance.now();
      try {
        await this.#poll();
      } catch (error) {
        if (this.#closed) return;
        if (!this.#away) this.#sink.onEvent({ kind: 'lost' });
        this.#away = true;
        this.#sink.onFailure(asGatewayError(error, 'redis: reading'));
      }
      await this.#pause.wait(Math.max(0, startedMs + this.intervalMs - performance.now()));
    }
  }

  async #poll(): Promise<void> {
    const { isCluster, links } = await this.#store.shards();
    const { connections } = this.#store;
    const [storeWallMs, ...shards] = await Promise.all([
      this.#time(),
      ...links.map((link) => this.#shard(link, isCluster)),
    ]);
    const values = new Map(shards.flat());
    if (isCluster) await this.#findMoved(values);
    const known = new Map<string, Known>();
    const records = new Map<string, PodRecord>();
    for (const [key, value] of values) {
      const entry = this.#read(key, value);
      known.set(key, entry);
      if (entry.record) records.set(key.slice(this.#prefix.length), entry.record);
    }
    // After the values: what was evicted before they were read is counted by then.
    const troubles = await this.#troubles(links);
    if (this.#closed) return;
    // Keys of one server and values of another say nothing about either.
    if (this.#store.connections !== connections)
      throw new GatewayError('store_unavailable', 'redis: reconnected while reading');
    this.#known = known;
    const doubtful = this.#away || (this.#connections !== 0 && this.#connections !== connections);
    this.#away = false;
    this.#connections = connections;
    this.#sink.onEvent({ kind: 'loaded', records, doubtful, storeWallMs, troubles });
  }

  /** What one server holds. */
  async #shard(link: RedisLink, isCluster: boolean): Promise<[key: string, value: Buffer | null][]> {
    const keys = await this.#keys(link);
    const entries: [string, Buffer | null][] = [];
    for (let at = 0; at < keys.length; at += valuesPerRead) {
      const some = keys.slice(at, at + valuesPerRead);
      const values = isCluster ? await this.#each(link, some) : await this.#together(link, some);
      for (const [index, key] of some.entries()) entries.push([key, values[index] ?? null]);
    }
    return entries;
  }

  async #keys(link: RedisLink): Promise<string[]> {
    // SCAN may return a key more than once.
    const keys = new Set<string>();
    let cursor = '0';
    do {
      const [next, some] = await link.call((redis) =>
        redis.scan(cursor, 'MATCH', `${this.#prefix}?*`, 'COUNT', scanCount),
      );
      for (const key of some) keys.add(key);
      cursor = next;
    } while (cursor !== '0');
    return [...keys];
  }

  async #together(link: RedisLink, keys: readonly string[]): Promise<(Buffer | null)[]> {
    try {
      return await link.call((redis) => redis.mgetBuffer([...keys]));
    } catch (error) {
      this.#store.noteAnswer(error);
      throw error;
    }
  }

  /**
   * In a cluster the keys of one command must be of one slot, so each has its own; they go and come
   * back together.
   */
  async #each(link: RedisLink, keys: readonly string[]): Promise<(Buffer | null)[]> {
    return await link.call((redis) =>
      Promise.all(
        keys.map(async (key) => {
          try {
            return await getString(redis, key);
          } catch (error) {
            // Its slot is on its way here or from here.
            if (!isRedirected(error)) throw error;
            return await this.#store.atKey((other) => getString(other, key));
          }
        }),
      ),
    );
  }

  /**
   * A key that was known and that no scan met may have gone from a server that was still to be
   * scanned to one that was already.
   */
  async #findMoved(values: Map<string, Buffer | null>): Promise<void> {
    const missing = [...this.#known.keys()].filter((key) => !values.has(key));
    for (let at = 0; at < missing.length; at += valuesPerRead) {
      await Promise.all(
        missing.slice(at, at + valuesPerRead).map(async (key) => {
          const value = await this.#store.atKey((redis) => getString(redis, key));
          if (value !== null) values.set(key, value);
        }),
      );
    }
  }

  /**
   * Null if the command is denied to this user or disabled: the command can be taken away in Redis's
   * configuration.
   */
  async #time(): Promise<number | null> {
    if (!this.#tellsTime) return null;
    try {
      const [seconds, microseconds] = await this.#store.call((redis) => redis.time());
      return Number(seconds) * 1000 + Number(microseconds) / 1000;
    } catch (error) {
      if (!isForbidden(error)) throw error;
      this.#tellsTime = false;
      return null;
    }
  }

  /** What the servers show of themselves; nothing when this user may not ask. */
  async #troubles(links: readonly RedisLink[]): Promise<readonly StoreTrouble[]> {
    if (!this.#tellsInfo) return [];
    try {
      const infos = await Promise.all(links.map((link) => link.call((redis) => redis.info())));
      const known = this.#store.connections === this.#connections ? this.#infos : new Map<RedisLink, RedisInfo>();
      this.#infos = new Map(links.map((link, at) => [link, readRedisInfo(infos[at] ?? '')]));
      const troubles = [...this.#infos].flatMap(([link, info]) => redisTroubles(known.get(link) ?? null, info));
      return [...new Set(troubles)];
    } catch (error) {
      if (!isForbidden(error)) throw error;
      this.#tellsInfo = false;
      return [];
    }
  }

  #read(key: string, value: Buffer | null): Known {
    const known = this.#known.get(key);
    if (known && (value === null ? known.value === null : known.value?.equals(value))) return known;
    const podName = key.slice(this.#prefix.length);
    const { record, skipped } = decodeRecord(podName, value, { allows: this.#sink.allows });
    for (const reason of new Set<SkipReason>(skipped)) this.#sink.onSkipped(reason, podName);
    // A copy: the value as it came is a piece of a far larger chunk of the socket.
    return { value: value && Buffer.from(value), record };
  }
}

/** As MGET has it: what is no string is nothing. */
async function getString(redis: Redis, key: string): Promise<Buffer | null> {
  try {
    return await redis.getBuffer(key);
  } catch (error) {
    if (answerOf(error).startsWith('WRONGTYPE')) return null;
    throw error;
  }
}

/** The command is denied to this user, or disabled in the configuration of Redis. */
function isForbidden(error: unknown): boolean {
  return error instanceof GatewayError && /NOPERM|unknown command/.test(error.message);
}
