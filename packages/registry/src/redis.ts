import { GatewayError } from '@llm-gateway/protocol';
import { Redis } from 'ioredis';
import { retryDelayMs } from './pause.ts';

export interface RedisSettings {
  /** Before the keys; empty: nothing. */
  readonly namespace: string;
  readonly host: string;
  readonly port: number;
  /** Empty: not sent. */
  readonly username: string;
  /** Read at each connection. */
  readonly password: () => string;
  /** For the connection, and for the answer to each command. */
  readonly socketTimeoutMs: number;
  /** How often a command is tried again when the connection failed. */
  readonly retryTimes: number;
}

/** A connection is this old before it is given up because Redis only reads: a master that is being elected must not be met by a storm of connections. */
const minConnectionMs = 1000;

/** One connection to Redis that comes back by itself. The only user of ioredis. */
export class RedisStore implements Disposable {
  readonly #redis: Redis;
  readonly #settings: RedisSettings;
  readonly #closing = new AbortController();
  #connections = 0;
  #connectedAtMs = 0;
  #lastError: unknown;

  constructor(settings: RedisSettings) {
    this.#settings = settings;
    this.#redis = new Redis({
      host: settings.host,
      port: settings.port,
      family: 0,
      ...(settings.username !== '' && { username: settings.username }),
      password: settings.password(),
      connectTimeout: settings.socketTimeoutMs,
      socketTimeout: settings.socketTimeoutMs,
      retryStrategy: (times) => {
        this.#redis.options.password = settings.password();
        return retryDelayMs(times, Math.random);
      },
      // A master that was demoted keeps its connections, and refuses writes for ever; the address may lead to the new one by now.
      reconnectOnError: ({ message }) =>
        message.startsWith('READONLY') && performance.now() - this.#connectedAtMs > minConnectionMs,
      // A command either goes out now or fails: one that waited would be sent at a time when it is no longer meant.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      // No command but ours: an ACL user may have no right to others.
      protocol: 2,
      enableReadyCheck: false,
      disableClientInfo: true,
    });
    this.#redis.on('ready', () => {
      this.#connections++;
      this.#connectedAtMs = performance.now();
    });
    this.#redis.on('error', (error) => {
      this.#lastError = error;
    });
  }

  /** Grows with each connection: what was read before and after a change was perhaps not read from the same data. */
  get connections(): number {
    return this.#connections;
  }

  /** The number of the connection, once there is one. Rejects as `call` does. */
  async connected(): Promise<number> {
    await this.call(async () => undefined);
    return this.#connections;
  }

  onConnected(listener: () => void): void {
    this.#redis.on('ready', listener);
  }

  /** Runs one command. Rejects with `store_unavailable` when there is no connection in time, no answer in time, or the answer is an error. */
  async call<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    for (let failures = 0; ; failures++) {
      try {
        await this.#ready();
        return await command(this.#redis);
      } catch (cause) {
        // What Redis itself answered, it would answer again.
        const answered = cause instanceof Error && cause.name === 'ReplyError';
        if (!answered && failures < this.#settings.retryTimes && !this.#closing.signal.aborted) continue;
        throw new GatewayError('store_unavailable', `redis: ${cause instanceof Error ? cause.message : cause}`, {
          cause,
        });
      }
    }
  }

  /** What still waits for an answer fails at once. */
  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#redis.disconnect();
    // The library waits for the server's half of the connection, which a server that hangs never closes.
    this.#redis.stream?.destroy();
  }

  async #ready(): Promise<void> {
    if (this.#redis.status === 'ready') return;
    const { signal } = this.#closing;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (): void => reject(this.#lastError ?? new Error('no connection'));
    const timer = setTimeout(fail, this.#settings.socketTimeoutMs);
    this.#redis.once('ready', resolve);
    signal.addEventListener('abort', fail);
    if (signal.aborted) fail();
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#redis.off('ready', resolve);
      signal.removeEventListener('abort', fail);
    }
  }
}
