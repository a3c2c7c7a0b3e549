import { GatewayError } from '@llm-gateway/protocol';
import { asGatewayError } from './gateway-error.ts';
import { Pause } from './pause.ts';
import { decodeRecord, type PodRecord, redisKeyPrefix, type SkipReason } from './record.ts';
import { type RedisSettings, RedisStore } from './redis.ts';
import type { ReaderSink, StoreReader } from './store.ts';

/** Keys looked at per SCAN: large, for each call is a round trip. */
const scanCount = 1000;
/** Values per MGET: Redis serves nobody else meanwhile. */
const valuesPerRead = 500;

interface Known {
  readonly value: Buffer | null;
  readonly record: PodRecord | null;
}

/** Polls Redis. Nothing is ever written to it: records that expired are their writers' to remove. */
export class RedisReader implements StoreReader {
  readonly intervalMs: number;
  readonly ttlMs: number;
  readonly #prefix: string;
  readonly #store: RedisStore;
  readonly #sink: ReaderSink;
  readonly #pause = new Pause();
  readonly #finished: Promise<void>;
  #closed = false;
  /** Values as last read. Most do not change from one poll to the next, and those are not decoded again. */
  #known: ReadonlyMap<string, Known> = new Map();
  #away = false;
  /** Of the store, at the last poll that worked. */
  #connections = 0;
  #tellsTime = true;

  constructor(settings: RedisSettings & { ttlMs: number; intervalMs: number }, sink: ReaderSink) {
    this.intervalMs = settings.intervalMs;
    this.ttlMs = settings.ttlMs;
    this.#prefix = redisKeyPrefix(settings.namespace);
    this.#store = new RedisStore(settings);
    this.#sink = sink;
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
    const connections = await this.#store.connected();
    const [storeWallMs, keys] = await Promise.all([this.#time(), this.#keys()]);
    const known = new Map<string, Known>();
    const records = new Map<string, PodRecord>();
    for (let at = 0; at < keys.length; at += valuesPerRead) {
      const some = keys.slice(at, at + valuesPerRead);
      const values = await this.#store.call((redis) => redis.mgetBuffer(some));
      for (const [index, key] of some.entries()) {
        const entry = this.#read(key, values[index] ?? null);
        known.set(key, entry);
        if (entry.record) records.set(key.slice(this.#prefix.length), entry.record);
      }
    }
    if (this.#closed) return;
    // Keys of one server and values of another say nothing about either.
    if (this.#store.connections !== connections)
      throw new GatewayError('store_unavailable', 'redis: reconnected while reading');
    this.#known = known;
    const doubtful = this.#away || (this.#connections !== 0 && this.#connections !== connections);
    this.#away = false;
    this.#connections = connections;
    this.#sink.onEvent({ kind: 'loaded', records, doubtful, storeWallMs });
  }

  async #keys(): Promise<string[]> {
    // SCAN may return a key more than once.
    const keys = new Set<string>();
    let cursor = '0';
    do {
      const [next, some] = await this.#store.call((redis) =>
        redis.scan(cursor, 'MATCH', `${this.#prefix}?*`, 'COUNT', scanCount),
      );
      for (const key of some) keys.add(key);
      cursor = next;
    } while (cursor !== '0');
    return [...keys];
  }

  /** Null when this user may not ask, or nobody may: the command can be taken away in Redis's configuration. */
  async #time(): Promise<number | null> {
    if (!this.#tellsTime) return null;
    try {
      const [seconds, microseconds] = await this.#store.call((redis) => redis.time());
      return Number(seconds) * 1000 + Number(microseconds) / 1000;
    } catch (error) {
      if (!(error instanceof GatewayError && /NOPERM|unknown command/.test(error.message))) throw error;
      this.#tellsTime = false;
      return null;
    }
  }

  #read(key: string, value: Buffer | null): Known {
    const known = this.#known.get(key);
    if (known && (value === null ? known.value === null : known.value?.equals(value))) return known;
    const podName = key.slice(this.#prefix.length);
    const { record, skipped } = decodeRecord(podName, value);
    for (const reason of new Set<SkipReason>(skipped)) this.#sink.onSkipped(reason, podName);
    // A copy: the value as it came is a piece of a far larger chunk of the socket.
    return { value: value && Buffer.from(value), record };
  }
}
