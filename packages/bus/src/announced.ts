import type { Announcement, EventMessage } from '@llm-gateway/protocol';
import type { Bus, Subscription } from './bus.ts';
import { eachSecond } from './each-second.ts';

/**
 * How long a message may come before the announcement of the address in it: announcements are
 * repeated each second.
 */
const waitMs = 1_500;
/**
 * A process that was silent for so long is forgotten. Longer than anything that it promised before
 * may still be fetched.
 */
const forgetMs = 600_000;
const maxNames = 1_000;
const maxWaiting = 1_000;
const maxPort = 65_535;

export interface Announcer extends Disposable {
  /** Announces without waiting for the next turn, as after the address has changed. */
  now(): void;
}

/**
 * Announces what `what` returns: now, on each new connection, and each second. Null: there is
 * nothing to announce at present. Dispose it before the bus.
 */
export function announce<P>(bus: Bus, message: EventMessage<P>, what: () => P | null): Announcer {
  const now = () => {
    const announcement = bus.connected ? what() : null;
    if (announcement !== null) bus.publish(message, announcement);
  };
  const repeats = eachSecond(now);
  const status = bus.onStatus((connected) => connected && now());
  now();
  return {
    now,
    [Symbol.dispose]() {
      repeats[Symbol.dispose]();
      status.close();
    },
  };
}

/**
 * Why an announcement does not count. `conflict`: the name is announced at another address. `full`:
 * there are too many names.
 */
export type AnnouncementFault = 'invalid' | 'conflict' | 'full';

export interface AnnouncedObserver {
  /** A process was announced that was not there before. */
  appeared?(announcement: Announcement): void;
  refused?(fault: AnnouncementFault, announcement: Announcement): void;
}

interface Known {
  readonly origin: string;
  heardMs: number;
}

interface Waiting {
  readonly announcement: Announcement;
  settle(): void;
}

/**
 * The processes that announced where they listen. The first address of a name stays its address for
 * as long as it is repeated: no other publisher can change it. When there are too many
 * names, new ones are refused and none is pushed out.
 */
export class Announced implements Disposable {
  readonly #observer: AnnouncedObserver;
  readonly #known = new Map<string, Known>();
  readonly #waiting = new Set<Waiting>();
  readonly #subscription: Subscription;

  constructor(bus: Bus, message: EventMessage<Announcement>, observer: AnnouncedObserver = {}) {
    this.#observer = observer;
    this.#subscription = bus.subscribe(message, (announcement) => this.#hear(announcement, performance.now()));
  }

  has({ name, origin }: Announcement): boolean {
    return this.#known.get(name)?.origin === origin;
  }

  /**
   * Whether the process is announced at this address, now or within a second and a half; false when
   * `signal` aborts before. Never rejects.
   */
  async arrives(announcement: Announcement, signal: AbortSignal): Promise<boolean> {
    if (this.has(announcement)) return true;
    // Announced elsewhere: waiting would not change it.
    if (this.#known.has(announcement.name) || signal.aborted || this.#waiting.size >= maxWaiting) return false;
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting: Waiting = { announcement, settle: resolve };
    const timer = setTimeout(resolve, waitMs);
    signal.addEventListener('abort', waiting.settle, { once: true });
    this.#waiting.add(waiting);
    await promise;
    this.#waiting.delete(waiting);
    clearTimeout(timer);
    signal.removeEventListener('abort', waiting.settle);
    return this.has(announcement);
  }

  #hear(announcement: Announcement, nowMs: number): void {
    const { name, origin } = announcement;
    const known = this.#known.get(name);
    if (known !== undefined && nowMs - known.heardMs < forgetMs) {
      if (known.origin === origin) known.heardMs = nowMs;
      else this.#observer.refused?.('conflict', announcement);
      return;
    }
    const fault = this.#fault(origin, nowMs);
    if (fault !== null) {
      this.#observer.refused?.(fault, announcement);
      return;
    }
    this.#known.set(name, { origin, heardMs: nowMs });
    this.#observer.appeared?.(announcement);
    for (const waiting of this.#waiting) if (waiting.announcement.name === name) waiting.settle();
  }

  #fault(origin: string, nowMs: number): AnnouncementFault | null {
    if (!isOrigin(origin)) return 'invalid';
    if (this.#known.size >= maxNames) {
      for (const [name, { heardMs }] of this.#known) if (nowMs - heardMs >= forgetMs) this.#known.delete(name);
    }
    return this.#known.size >= maxNames ? 'full' : null;
  }

  [Symbol.dispose](): void {
    this.#subscription.close();
    for (const { settle } of this.#waiting) settle();
  }
}

/**
 * The schema has checked its form: `http://host:port`, and nothing that a URL could read as
 * something else.
 */
function isOrigin(origin: string): boolean {
  const url = URL.parse(origin);
  const port = Number(origin.slice(origin.lastIndexOf(':') + 1));
  return url !== null && url.pathname === '/' && port >= 1 && port <= maxPort;
}
