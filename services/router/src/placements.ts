import { type Bus, inParts } from '@llm-gateway/bus';
import { type PrefixPlaced, prefixPlaced } from '@llm-gateway/protocol';

type Placed = PrefixPlaced['placed'][number];

/**
 * So long placements are gathered: for the next router it is early enough to know them when it is
 * asked instead of this one.
 */
const gatherMs = 50;
/** More in that time are not told. A lost one costs a cache hit. */
const maxGathered = 4096;
const maxPlaced = 1024;
const envelopeBytes = 256;
const placedBytes = 64;
const minPartBytes = 8 * 1024;

/** Tells the other routers which prompts this one sent where, many in one message. */
export class Placements implements Disposable {
  readonly #bus: Bus;
  readonly #router: string;
  readonly #onDropped: () => void;
  #gathered: Placed[] = [];
  #due: NodeJS.Timeout | undefined;

  constructor(bus: Bus, router: string, onDropped: () => void) {
    this.#bus = bus;
    this.#router = router;
    this.#onDropped = onDropped;
  }

  add(instance: string, fingerprints: string): void {
    if (this.#gathered.length >= maxGathered) {
      this.#onDropped();
      return;
    }
    this.#gathered.push({ instance, fingerprints });
    this.#due ??= setTimeout(() => this.#tell(), gatherMs).unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#due);
    this.#tell();
  }

  #tell(): void {
    this.#due = undefined;
    const gathered = this.#gathered;
    this.#gathered = [];
    const maxBytes = Math.max(minPartBytes, this.#bus.maxBytes - envelopeBytes);
    const bytes = ({ instance, fingerprints }: Placed) => placedBytes + 3 * instance.length + fingerprints.length;
    for (const part of inParts(gathered, bytes, maxBytes)) {
      for (let at = 0; at < part.length; at += maxPlaced) {
        this.#bus.publish(prefixPlaced, { router: this.#router, placed: part.slice(at, at + maxPlaced) });
      }
    }
  }
}
