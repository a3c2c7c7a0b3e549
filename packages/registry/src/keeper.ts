import type { GatewayError, Instance } from '@llm-gateway/protocol';
import { asGatewayError } from './gateway-error.ts';
import { Pause, retryDelayMs } from './pause.ts';
import { failureReason, type Refusal } from './refusal.ts';
import type { RecordKeeper } from './store.ts';

/** What keeps a record in its store between puts. */
export interface Renewal {
  readonly intervalMs: number;
  /** Keeps what was put; false when it is gone. */
  renew(): Promise<boolean>;
}

/**
 * One pod's place in one store. All of it rejects with `GatewayError`, each within a deadline of
 * its own.
 */
export interface RecordPlace extends Disposable {
  put(instances: readonly Instance[]): Promise<void>;
  /** No error when there is none. */
  remove(): Promise<void>;
  /** Null: what was put stays for its TTL, and only a put prolongs it. */
  readonly renewal: Renewal | null;
  /**
   * From now on, and for what is under way, all members must have been tried in this time. Absent:
   * there is but one.
   */
  hurry?(timeoutMs: number): void;
  /** Called when the record may be gone: the connection was lost, or it was removed. */
  onDoubt(listener: () => void): void;
}

export interface KeeperOptions {
  /** How long a record stays in the store when nothing keeps it there. */
  readonly ttlMs: number;
  /** At each failed try. */
  readonly onFailure: (error: GatewayError) => void;
}

/**
 * Makes the store hold the given record, retrying as long as necessary. One thing at a time, the newest
 * wish wins.
 */
export class Keeper implements RecordKeeper {
  readonly #place: RecordPlace;
  readonly #options: KeeperOptions;
  readonly #pause = new Pause();
  readonly #finished: Promise<void>;
  #wanted: readonly Instance[] = [];
  /** The store must be written before it holds what is wanted, as far as is known. */
  #dirty = false;
  #closed = false;
  #removing: (() => void) | null = null;
  /** When the record was last put or renewed, monotonic; null when there is none. */
  #keptAtMs: number | null = null;
  #failures = 0;
  #storeUp = false;
  #refusal: Refusal | null = null;

  constructor(place: RecordPlace, options: KeeperOptions) {
    this.#place = place;
    this.#options = options;
    place.onDoubt(() => {
      // A record that shall not be there cannot be missed.
      if (this.#wanted.length > 0) this.#soil();
    });
    this.#finished = this.#run();
  }

  get written(): boolean {
    return this.#keptAtMs !== null && performance.now() - this.#keptAtMs < this.#options.ttlMs;
  }

  get storeUp(): boolean {
    return this.#storeUp;
  }

  get refusal(): Refusal | null {
    return this.#refusal;
  }

  set(instances: readonly Instance[]): void {
    if (this.#removing) return;
    this.#wanted = instances;
    this.#soil();
  }

  async remove(timeoutMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), timeoutMs);
    this.#removing = () => resolve(true);
    this.#wanted = [];
    this.#place.hurry?.(timeoutMs);
    this.#soil();
    const removed = await promise;
    clearTimeout(timer);
    return removed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#pause.ring();
    this.#place[Symbol.dispose]();
    await this.#finished;
  }

  #soil(): void {
    this.#dirty = true;
    this.#pause.ring();
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        if (this.#dirty) await this.#write();
        else if (this.#renewInMs() <= 0) await this.#renew();
        else {
          await this.#pause.wait(this.#renewInMs());
          continue;
        }
        this.#failures = 0;
        this.#storeUp = true;
        this.#refusal = null;
      } catch (error) {
        if (this.#closed) return;
        const failure = asGatewayError(error, 'keeping the record');
        const reason = failureReason(failure);
        this.#refusal = reason === 'unreachable' ? null : reason;
        this.#storeUp = reason !== 'unreachable';
        this.#failures++;
        this.#options.onFailure(failure);
        await this.#pause.wait(retryDelayMs(this.#failures, Math.random));
      }
    }
  }

  async #write(): Promise<void> {
    this.#dirty = false;
    const wanted = this.#wanted;
    try {
      if (wanted.length > 0) {
        const putAtMs = performance.now();
        await this.#place.put(wanted);
        this.#keptAtMs = putAtMs;
      } else {
        await this.#place.remove();
        this.#keptAtMs = null;
        if (!this.#dirty) this.#removing?.();
      }
    } catch (error) {
      this.#dirty = true;
      throw error;
    }
  }

  async #renew(): Promise<void> {
    const renewAtMs = performance.now();
    if (await this.#place.renewal?.renew()) this.#keptAtMs = renewAtMs;
    else this.#dirty = true;
  }

  #renewInMs(): number {
    const { renewal } = this.#place;
    if (renewal === null || this.#keptAtMs === null) return Number.POSITIVE_INFINITY;
    return this.#keptAtMs + renewal.intervalMs - performance.now();
  }
}
