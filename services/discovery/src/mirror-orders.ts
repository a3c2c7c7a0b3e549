import { type Bus, eachSecond } from '@llm-gateway/bus';
import { laterPause, type MirrorOrder, type MirrorPause, mirrorOrder, mirrorPaused } from '@llm-gateway/protocol';
import type { Logger } from '@llm-gateway/runtime';

/** How long a `resume` without a pause is repeated, so that every ingress receives it. */
const resumeMs = 5000;

/**
 * Accepts orders for the mirror and sends them to the ingresses each second until their end. All
 * replicas hold the last order that they know of, so it survives each of them, and the
 * mirror-senders have no part in it.
 */
export class MirrorOrders implements Disposable {
  readonly #bus: Bus;
  readonly #open = new DisposableStack();
  #held: MirrorPause | null = null;

  constructor(bus: Bus, { replica, log }: { readonly replica: string; readonly log: Pick<Logger, 'info'> }) {
    this.#bus = bus;
    this.#open.use(
      bus.respond(mirrorOrder, (order) => {
        const pause = this.#give(order, Date.now());
        const { kind, forMs, by, reason } = order;
        log.info({ kind, forMs, by, reason }, 'mirror order accepted');
        return { replica, untilMs: pause.untilMs };
      }),
    );
    this.#open.use(
      bus.subscribe(mirrorPaused, (told) => {
        this.#held = laterPause(this.#held, told, Date.now());
      }),
    );
    this.#open.use(eachSecond(() => this.tell()));
  }

  #give({ kind, forMs, by, reason }: MirrorOrder, nowMs: number): MirrorPause {
    const paused = kind === 'pause';
    // What ended a pause is remembered for as long as that would last: a replica may still hold it.
    const untilMs = paused ? nowMs + forMs : Math.max(this.#held?.untilMs ?? 0, nowMs + resumeMs);
    const atMs = Math.max(nowMs, (this.#held?.atMs ?? 0) + 1);
    const pause = { paused, atMs, untilMs, by, reason };
    this.#held = pause;
    this.tell();
    return pause;
  }

  /** Sent to replicas that just started, and by one that leaves. */
  tell(): void {
    if (this.#held !== null && this.#held.untilMs <= Date.now()) this.#held = null;
    if (this.#held !== null && this.#bus.connected) this.#bus.publish(mirrorPaused, this.#held);
  }

  [Symbol.dispose](): void {
    this.tell();
    this.#open.dispose();
  }
}
