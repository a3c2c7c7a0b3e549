import type { Bus, Subscription } from '@llm-gateway/bus';
import { routerBeat } from '@llm-gateway/protocol';

/** Three beats of a router are lost before it counts as gone. */
const silentMs = 3500;
/** Who may publish may invent names; beyond so many, new ones are not taken. */
const maxRouters = 100;

/** The routers of one generation that beat, and which of them owns a pool. */
export class Routers implements Disposable {
  /** When the last beat of each came, in monotonic milliseconds. */
  readonly #beats = new Map<string, number>();
  readonly #subscription: Subscription;

  constructor(bus: Bus, generation: string) {
    this.#subscription = bus.subscribe(routerBeat, (beat) => {
      if (beat.generation === generation) this.#beat(beat.router, performance.now());
      else this.#beats.delete(beat.router);
    });
  }

  /**
   * The router whose picks of the pool this ingress takes, by rendezvous hashing: all ingresses that receive the same beats name the same one, and a
   * router that comes or goes moves no pool but those that it gets or had. Undefined while there is none. `now` in monotonic milliseconds.
   */
  ownerOf(pool: string, now: number): string | undefined {
    let owner: string | undefined;
    let best = -1;
    for (const [router, beatAt] of this.#beats) {
      if (now - beatAt >= silentMs) {
        this.#beats.delete(router);
        continue;
      }
      const score = hash(`${router} ${pool}`);
      if (score < best || (score === best && owner !== undefined && router > owner)) continue;
      best = score;
      owner = router;
    }
    return owner;
  }

  /** It did not answer: others own its pools until it beats again. */
  drop(router: string): void {
    this.#beats.delete(router);
  }

  [Symbol.dispose](): void {
    this.#subscription.close();
  }

  #beat(router: string, now: number): void {
    if (this.#beats.size >= maxRouters && !this.#beats.has(router)) return;
    this.#beats.set(router, now);
  }
}

/** FNV-1a, and the last steps of MurmurHash3, without which names that end alike would be close to each other. 32 bits, unsigned. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) h = Math.imul(h ^ text.charCodeAt(at), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
