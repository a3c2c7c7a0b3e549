import type { GatewayError, Instance } from '@llm-gateway/protocol';
import type { PodRecord, SkipReason } from './record.ts';
import type { Refusal, StoreTrouble } from './refusal.ts';

/** Records by pod name. */
export type Records = ReadonlyMap<string, PodRecord>;

/** What a reader sees of its store. */
export type StoreEvent =
  /** Everything the store holds. */
  | {
      readonly kind: 'loaded';
      readonly records: Records;
      /**
       * The store was away, or lost data, since the last event: a record that is missing was
       * perhaps not deleted.
       */
      readonly doubtful: boolean;
      /** The store's own wall clock in Unix milliseconds; null if it reports none. */
      readonly storeWallMs: number | null;
      /** What the store showed of itself since the last event. */
      readonly troubles: readonly StoreTrouble[];
    }
  /**
   * What changed since the last event; nothing did when both are empty, which says that the store
   * is there.
   */
  | {
      readonly kind: 'changed';
      readonly puts: Records;
      readonly deletes: readonly string[];
      /**
       * The most that were deleted in one act, those that are back already among them: a store that
       * was emptied shows so.
       */
      readonly deletedTogether: readonly string[];
      /** What the store showed of itself when it was last asked. */
      readonly troubles: readonly StoreTrouble[];
    }
  /** The store does not answer. Said once; the next event of another kind ends it. */
  | { readonly kind: 'lost' };

/** Where a reader reports. None of these may throw. */
export interface ReaderSink {
  onEvent(event: StoreEvent): void;
  /** Something in the store does not count. Said once for each value, not at each reading. */
  onSkipped(reason: SkipReason, podName: string): void;
  /** Whether an instance may be at this host, an IP address or a name. Absent: anywhere. */
  allows?(host: string): boolean;
  /** Why the store is away, at each failed try. */
  onFailure(error: GatewayError): void;
}

/**
 * Reads until disposed; never gives up. While all is well it makes an event at least every
 * `intervalMs`.
 */
export interface StoreReader extends AsyncDisposable {
  readonly intervalMs: number;
  /** A record lives this long after its timestamp. */
  readonly ttlMs: number;
  /** A record stays this long in the store after it was last written, or its lease renewed. */
  readonly keptMs: number;
  /** Whether leases keep records there. A record without one stays until it is deleted. */
  readonly leases: boolean;
}

/** Keeps one pod's record in a store. */
export interface RecordKeeper extends AsyncDisposable {
  /**
   * The instances the record shall hold from now on; none: there shall be no record. Returns at
   * once; it is written, and after a failure or a loss of the store written again, in the
   * background. Each call writes, with a fresh timestamp.
   */
  set(instances: readonly Instance[]): void;
  /**
   * The store holds the record, as far as can be known: written less than a TTL ago and not removed
   * since.
   */
  readonly written: boolean;
  /** The store answers, even if with a refusal. */
  readonly storeUp: boolean;
  /**
   * Why the store that answers did not take the last write; null when it took it, or does not
   * answer.
   */
  readonly refusal: Refusal | null;
  /** Removes the record; resolves when it is gone, or false after `timeoutMs`. */
  remove(timeoutMs: number): Promise<boolean>;
}
