import { GatewayError } from '@llm-gateway/protocol';
import { EtcdConnection, type EtcdEntry, type EtcdHead, type EtcdSettings } from './etcd.ts';
import { asGatewayError } from './gateway-error.ts';
import { Pause, retryDelayMs } from './pause.ts';
import { decodeRecord, etcdKeyPrefix, type PodRecord, type SkipReason } from './record.ts';
import type { StoreTrouble } from './refusal.ts';
import type { ReaderSink, StoreReader } from './store.ts';

/**
 * How often a member must show that it still has a quorum and its history: a watch of a member that
 * lost them is silent.
 */
const probeIntervalMs = 1000;
/**
 * Without a word for this long the store counts as lost, although a call may still wait for its
 * answer.
 */
const silenceMs = 3000;
/**
 * Changes are gathered this long: hundreds a second must not each cost a look at thousands of
 * records.
 */
const gatherMs = 20;

/**
 * Loads everything, then watches from the next revision. Any failure, and the refresh interval,
 * begins that anew.
 */
export class EtcdReader implements StoreReader {
  readonly intervalMs = probeIntervalMs;
  readonly ttlMs: number;
  readonly keptMs: number;
  readonly leases = true;
  readonly #settings: EtcdSettings & { readonly refreshIntervalMs: number };
  readonly #prefix: string;
  readonly #sink: ReaderSink;
  readonly #pause = new Pause();
  /** Fires when the store has been silent for too long. */
  #watchdog: NodeJS.Timeout | undefined;
  readonly #finished: Promise<void>;
  #closed = false;
  #connection: EtcdConnection | null = null;
  /** The newest that was seen of the cluster. */
  #head: EtcdHead | null = null;
  #heardAtMs = performance.now();
  /** `lost` was reported, and the store has been silent since. */
  #away = false;
  #troubles: readonly StoreTrouble[] = [];
  /** Keys whose value does not count, and why. */
  readonly #skipped = new Map<string, string>();

  constructor(settings: EtcdSettings & { ttlMs: number; refreshIntervalMs: number }, sink: ReaderSink) {
    this.ttlMs = settings.ttlMs;
    this.keptMs = settings.ttlMs;
    this.#settings = settings;
    this.#prefix = etcdKeyPrefix(settings.namespace);
    this.#sink = sink;
    this.#watch();
    this.#finished = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#watchdog);
    this.#connection?.[Symbol.dispose]();
    this.#pause.ring();
    await this.#finished;
  }

  async #run(): Promise<void> {
    const { urls } = this.#settings;
    // Anywhere in the list, so that many readers do not all watch the first.
    let at = Math.floor(Math.random() * urls.length);
    let failures = 0;
    while (!this.#closed) {
      try {
        using connection = new EtcdConnection(urls[at % urls.length] ?? '', this.#settings);
        this.#connection = connection;
        await this.#follow(connection, () => {
          failures = 0;
        });
      } catch (error) {
        if (this.#closed) return;
        at++;
        failures++;
        this.#sink.onFailure(asGatewayError(error, 'etcd: reading'));
        if (failures % urls.length !== 0) continue;
        // Once round the list may have been one member that ended, behind an address that all share.
        if (failures > urls.length) this.#lose();
        await this.#pause.wait(retryDelayMs(failures / urls.length, Math.random));
      }
    }
  }

  /** Until it fails, or the reader is disposed of. */
  async #follow(connection: EtcdConnection, onWatching: () => void): Promise<void> {
    while (!this.#closed) {
      const { entries, ...head } = await connection.read(this.#prefix);
      if (this.#closed) return;
      this.#load(entries, head);
      const refreshAtMs = performance.now() + this.#settings.refreshIntervalMs;
      const changes = new Changes(this.#pause);
      using _watch = await connection.watch({ prefix: this.#prefix }, head.revision + 1, changes);
      onWatching();
      let probeAtMs = performance.now() + probeIntervalMs;
      while (!this.#closed && performance.now() < refreshAtMs) {
        await this.#pause.wait(Math.max(0, Math.min(probeAtMs, refreshAtMs) - performance.now()));
        if (changes.ended) throw changes.ended;
        if (!changes.empty) {
          await this.#pause.wait(gatherMs);
          this.#change(changes);
        }
        if (performance.now() < probeAtMs) continue;
        const [head, outOfSpace] = await Promise.all([connection.head(this.#prefix), connection.outOfSpace()]);
        this.#troubles = outOfSpace ? ['no_space'] : [];
        this.#confirm(head);
        probeAtMs = performance.now() + probeIntervalMs;
      }
    }
  }

  #load(entries: readonly EtcdEntry[], head: EtcdHead): void {
    // Leases are renewed every third of their TTL: in a shorter outage none can have run out whose
    // holder lives.
    const doubtful = this.#isOtherHistory(head) || performance.now() - this.#heardAtMs > this.ttlMs / 2;
    const records = new Map<string, PodRecord>();
    for (const entry of entries) {
      const record = this.#decode(entry);
      if (record) records.set(this.#podName(entry.key), record);
    }
    this.#head = head;
    this.#hear();
    this.#sink.onEvent({ kind: 'loaded', records, doubtful, storeWallMs: null, troubles: this.#troubles });
  }

  #change(changes: Changes): void {
    const puts = new Map<string, PodRecord>();
    const deletes: string[] = [];
    for (const [key, entry] of changes.entries) {
      const record = entry && this.#decode(entry);
      if (record) puts.set(this.#podName(key), record);
      else deletes.push(this.#podName(key));
      if (!entry) this.#skipped.delete(key);
    }
    if (this.#head) this.#head = { ...this.#head, revision: Math.max(this.#head.revision, changes.revision) };
    const deletedTogether = changes.deletedTogether().map((key) => this.#podName(key));
    changes.clear();
    this.#hear();
    this.#sink.onEvent({ kind: 'changed', puts, deletes, deletedTogether, troubles: this.#troubles });
  }

  #confirm(head: EtcdHead): void {
    if (this.#closed) return;
    if (this.#isOtherHistory(head)) throw new GatewayError('store_unavailable', 'etcd: the data was lost or replaced');
    this.#hear();
    this.#sink.onEvent({
      kind: 'changed',
      puts: new Map(),
      deletes: [],
      deletedTogether: [],
      troubles: this.#troubles,
    });
  }

  #isOtherHistory(head: EtcdHead): boolean {
    const known = this.#head;
    return known !== null && (head.clusterId !== known.clusterId || head.revision < known.revision);
  }

  #decode(entry: EtcdEntry): PodRecord | null {
    const name = this.#podName(entry.key);
    const { record, skipped } = decodeRecord(name, entry.value, { leased: entry.leased, allows: this.#sink.allows });
    const reasons = skipped.join();
    if (reasons !== this.#skipped.get(entry.key)) {
      for (const reason of new Set<SkipReason>(skipped)) this.#sink.onSkipped(reason, name);
    }
    if (reasons === '') this.#skipped.delete(entry.key);
    else this.#skipped.set(entry.key, reasons);
    return record;
  }

  #podName(key: string): string {
    return key.slice(this.#prefix.length);
  }

  #hear(): void {
    this.#heardAtMs = performance.now();
    this.#away = false;
  }

  /** Activity moves the deadline, not the timer: one that fires early is set again. */
  #watch(): void {
    const leftMs = this.#away ? silenceMs : this.#heardAtMs + silenceMs - performance.now();
    if (leftMs <= 0) this.#lose();
    this.#watchdog = setTimeout(() => this.#watch(), leftMs > 0 ? Math.ceil(leftMs) : silenceMs);
  }

  #lose(): void {
    if (this.#away || this.#closed) return;
    this.#away = true;
    this.#sink.onEvent({ kind: 'lost' });
  }
}

/** Events of a watch that the reader has not yet passed on. */
class Changes {
  /** By key, the newest; null: deleted. */
  readonly entries = new Map<string, EtcdEntry | null>();
  revision = 0;
  ended: GatewayError | null = null;
  readonly #pause: Pause;
  /** Deleted keys by revision, also those that were put again since. */
  readonly #deletions = new Map<number, string[]>();

  constructor(pause: Pause) {
    this.#pause = pause;
  }

  get empty(): boolean {
    return this.entries.size === 0;
  }

  clear(): void {
    this.entries.clear();
    this.#deletions.clear();
  }

  /** The keys of the revision that deleted the most. */
  deletedTogether(): readonly string[] {
    let most: readonly string[] = [];
    for (const keys of this.#deletions.values()) if (keys.length > most.length) most = keys;
    return most;
  }

  onPut(entry: EtcdEntry, revision: number): void {
    this.#add(entry.key, entry, revision);
  }

  onDelete(key: string, revision: number): void {
    const keys = this.#deletions.get(revision) ?? [];
    this.#deletions.set(revision, keys);
    keys.push(key);
    this.#add(key, null, revision);
  }

  onEnd(error: GatewayError): void {
    this.ended = error;
    this.#pause.ring();
  }

  #add(key: string, entry: EtcdEntry | null, revision: number): void {
    if (this.empty) this.#pause.ring();
    this.entries.set(key, entry);
    this.revision = revision;
  }
}
