import { GatewayError, type Instance } from '@llm-gateway/protocol';
import { EtcdConnection, type EtcdSettings } from './etcd.ts';
import type { RecordPlace, Renewal } from './keeper.ts';
import { encodeRecord, etcdKeyPrefix } from './record.ts';
import { failureReason } from './refusal.ts';

/**
 * A pod's record in etcd, under a lease. It watches its own key, and so knows at once when the
 * lease or the data is lost.
 */
export class EtcdPlace implements RecordPlace {
  readonly renewal: Renewal;
  readonly #podName: string;
  readonly #key: string;
  readonly #settings: EtcdSettings & { readonly leaseTtlSeconds: number };
  #connection: EtcdConnection | null = null;
  /** Index of the endpoint in use. */
  #at: number;
  #lease: string | null = null;
  #doubt = (): void => undefined;
  /** How long one member may take; null: as long as its connection allows. */
  #memberTimeoutMs: number | null = null;
  /** Ends the member in use when its time is over. */
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(podName: string, settings: EtcdSettings & { leaseTtlSeconds: number }) {
    this.#podName = podName;
    this.#key = `${etcdKeyPrefix(settings.namespace)}${podName}`;
    this.#settings = settings;
    this.renewal = { intervalMs: (settings.leaseTtlSeconds * 1000) / 3, renew: () => this.#renew() };
    this.#at = Math.floor(Math.random() * settings.urls.length);
  }

  async put(instances: readonly Instance[]): Promise<void> {
    const value = encodeRecord(this.#podName, Date.now(), instances);
    await this.#use(async (connection) => {
      // A put does not prolong its lease, and no renewal happens while there are puts.
      if (this.#lease !== null && (await connection.keepAlive(this.#lease))) {
        if (await connection.put(this.#key, value, this.#lease)) return;
      }
      this.#lease = await connection.grant(this.#settings.leaseTtlSeconds);
      if (await connection.put(this.#key, value, this.#lease)) return;
      throw new GatewayError('store_unavailable', 'etcd: a new lease expired immediately');
    });
  }

  async remove(): Promise<void> {
    await this.#use(async (connection) => {
      // Without a lease there may still be what an earlier process of this pod left under its own.
      if (this.#lease === null) await connection.delete(this.#key);
      else await connection.revoke(this.#lease);
      this.#lease = null;
    });
  }

  hurry(timeoutMs: number): void {
    this.#memberTimeoutMs = timeoutMs / this.#settings.urls.length;
    this.#limit();
  }

  onDoubt(listener: () => void): void {
    this.#doubt = listener;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#disconnect();
  }

  async #renew(): Promise<boolean> {
    return await this.#use(async (connection) => this.#lease !== null && (await connection.keepAlive(this.#lease)));
  }

  /**
   * Over the connection there is, or a new one to the next endpoint; every failure ends the
   * connection, but a refusal, which every member would repeat.
   */
  async #use<T>(work: (connection: EtcdConnection) => Promise<T>): Promise<T> {
    const { urls } = this.#settings;
    for (let failures = 0; ; failures++) {
      this.#limit();
      try {
        return await work(this.#connection ?? (await this.#connect()));
      } catch (error) {
        if (isRefused(error)) throw error;
        this.#disconnect();
        this.#at++;
        if (this.#closed || failures + 1 >= urls.length) throw error;
      }
    }
  }

  /** Begins the time of the member in use, or of the next one. */
  #limit(): void {
    clearTimeout(this.#timer);
    if (this.#memberTimeoutMs !== null) this.#timer = setTimeout(() => this.#disconnect(), this.#memberTimeoutMs);
  }

  async #connect(): Promise<EtcdConnection> {
    const { urls } = this.#settings;
    const connection = new EtcdConnection(urls[this.#at % urls.length] ?? '', this.#settings);
    this.#connection = connection;
    const lose = (): void => {
      if (this.#connection !== connection) return;
      this.#disconnect();
      this.#doubt();
    };
    await connection.watch({ key: this.#key }, null, {
      onPut: () => undefined,
      onDelete: () => this.#doubt(),
      onEnd: lose,
    });
    return connection;
  }

  #disconnect(): void {
    this.#connection?.[Symbol.dispose]();
    this.#connection = null;
  }
}

function isRefused(error: unknown): boolean {
  return error instanceof GatewayError && ['no_space', 'not_allowed'].includes(failureReason(error));
}
