import type { Bus } from '@llm-gateway/bus';
import { ownerOf } from '@llm-gateway/fleet';
import { type ConfigHeld, configHeld, GatewayError, routerBeat } from '@llm-gateway/protocol';
import { Holders, type Holding } from './holders.ts';

/**
 * The routers that are heard, which route configs each of them holds, and which of them owns a
 * pool.
 */
export class Routers implements Disposable {
  readonly #holders = new Holders();
  /** Did not answer since they were heard last. */
  readonly #dropped = new Set<string>();
  /** Processes that report all generations they hold; heartbeats of others name only one. */
  readonly #telling = new Set<string>();
  readonly #subscriptions = new DisposableStack();

  /**
   * @param options.onHeard is called after each message of a router
   * @param options.onOther is called with what processes of other services tell
   */
  constructor(
    bus: Bus,
    { onHeard = () => {}, onOther }: { onHeard?: () => void; onOther?: (told: ConfigHeld) => void } = {},
  ) {
    const hear = (router: string, generations: readonly string[]) => {
      this.#holders.hear(router, generations, performance.now());
      this.#dropped.delete(router);
      onHeard();
    };
    this.#subscriptions.use(
      bus.subscribe(routerBeat, (beat) => {
        if (beat.leaving === true) this.#holders.forget(beat.router);
        else if (!this.#telling.has(beat.router)) hear(beat.router, [beat.generation]);
      }),
    );
    this.#subscriptions.use(
      bus.subscribe(configHeld, (told) => {
        if (told.service !== 'router') {
          onOther?.(told);
          return;
        }
        if (this.#telling.size >= maxTelling) this.#telling.clear();
        this.#telling.add(told.process);
        hear(told.process, told.generations);
      }),
    );
  }

  /** How many of the routers that live hold a generation; `now` in monotonic milliseconds. */
  holding(generation: string, now: number): Holding {
    return this.#holders.holding(generation, now);
  }

  /**
   * The router that decides for the pool, of those that hold the generation. Undefined while there
   * is none.
   */
  ownerOf(pool: string, generation: string, now: number): string | undefined {
    return ownerOf(pool, this.#holders.having(generation, now), this.#dropped);
  }

  /** It did not answer: others own its pools until it is heard again. */
  drop(router: string): void {
    if (this.#dropped.size >= maxDropped) this.#dropped.clear();
    this.#dropped.add(router);
  }

  [Symbol.dispose](): void {
    this.#subscriptions.dispose();
  }
}

/** Names of routers that came and went. */
const maxTelling = 1000;
const maxDropped = 1000;

/** Whether the router that was asked is at fault, and not the bus or the message. */
export function isAway(error: unknown): boolean {
  return error instanceof GatewayError && (error.code === 'bus_no_responders' || error.code === 'bus_timeout');
}
