import type { Bus } from './bus.ts';
import { inParts } from './parts.ts';

/** A bus that takes less than this would need a message for each entry. */
const minPartBytes = 8 * 1024;

export interface OutboxOptions<Entry> {
  readonly bus: Pick<Bus, 'maxBytes'>;
  /** How long the first entry waits for others. */
  readonly delayMs: number;
  /** So many entries wait at most: then they are published at once, or what comes is dropped. */
  readonly maxWaiting: number;
  readonly whenFull: 'publish' | 'drop';
  /** Entries of one message. */
  readonly maxEntries: number;
  /** What a message takes besides its entries, in bytes. */
  readonly envelopeBytes: number;
  /** What an entry takes at most, in bytes. */
  bytesOf(entry: Entry): number;
  /** Publishes one message. Must not throw. */
  publish(entries: Entry[]): void;
  /** Called for each entry that is dropped because too many wait. */
  onDropped?(): void;
}

/**
 * Events that go to the bus together: entries are gathered for a moment and published in as few
 * messages as the bus takes. Their number is bounded; nothing is kept for later when the bus takes
 * none. Does not keep the process alive; what waits is published when it is disposed.
 */
export class Outbox<Entry> implements Disposable {
  readonly #options: OutboxOptions<Entry>;
  #waiting: Entry[] = [];
  #due: NodeJS.Timeout | undefined;

  constructor(options: OutboxOptions<Entry>) {
    this.#options = options;
  }

  add(entry: Entry): void {
    const { maxWaiting, whenFull, delayMs, onDropped } = this.#options;
    if (this.#waiting.length >= maxWaiting) {
      onDropped?.();
      return;
    }
    this.#waiting.push(entry);
    if (whenFull === 'publish' && this.#waiting.length >= maxWaiting) this.#publish();
    else this.#due ??= setTimeout(() => this.#publish(), delayMs).unref();
  }

  [Symbol.dispose](): void {
    this.#publish();
  }

  #publish(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    const entries = this.#waiting;
    if (entries.length === 0) return;
    this.#waiting = [];
    const { bus, bytesOf, envelopeBytes, maxEntries, publish } = this.#options;
    const maxBytes = Math.max(minPartBytes, bus.maxBytes - envelopeBytes);
    for (const part of inParts(entries, bytesOf, maxBytes)) {
      for (let at = 0; at < part.length; at += maxEntries) publish(part.slice(at, at + maxEntries));
    }
  }
}
