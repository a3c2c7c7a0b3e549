import type { Role } from '@llm-gateway/protocol';
import type { TokenCounts } from '../usage/usage-reader.ts';
import type { FairQueue } from './fair-queue.ts';

/** Requests that one ingress has at instances in one role, for the models of one group. */
export interface Held {
  readonly role: Role;
  held: number;
}

interface PlaceParts {
  readonly queue: FairQueue<unknown>;
  readonly client: string;
  /** Tokens that the request is taken to need until its usage is known. */
  readonly estimate: number;
  /** Of those, the ones of its prompt. */
  readonly promptEstimate: number;
  /** When the estimate was charged, in monotonic milliseconds. */
  readonly chargedAt: number;
  readonly kinds: readonly Held[];
  /** Hears that something was given back. */
  readonly onFree: () => void;
}

/**
 * A request's place at instances: one in each role that it needs, from its first call to the end of
 * its last one there.
 */
export class Place {
  readonly #parts: PlaceParts;
  readonly #held: Set<Held>;

  constructor(parts: PlaceParts) {
    this.#parts = parts;
    this.#held = new Set(parts.kinds);
    for (const kind of parts.kinds) kind.held++;
  }

  /** Its prompt is computed: what follows needs a decode instance alone. */
  prefilled(): void {
    for (const kind of this.#held) if (kind.role === 'prefill') this.#free(kind);
  }

  /**
   * It is over there. Only the first call does anything.
   * @param counts its tokens; null if unknown: then the estimate counts, if an engine
   * did anything for it
   * @param chunks of its stream, each of which is about a token; 0 for an answer that is none
   */
  release(counts: TokenCounts | null, answered: boolean, chunks = 0): void {
    if (this.#held.size === 0) return;
    const { queue, client, estimate, promptEstimate, chargedAt } = this.#parts;
    const guessed = chunks > 0 ? promptEstimate + chunks : estimate;
    const used = counts === null ? (answered ? guessed : 0) : counts.prompt + counts.completion;
    const now = performance.now();
    if (used >= estimate) queue.charge(client, used - estimate, now);
    else queue.refund(client, estimate - used, { chargedAt, now });
    for (const kind of this.#held) this.#free(kind);
  }

  #free(kind: Held): void {
    if (!this.#held.delete(kind)) return;
    kind.held--;
    this.#parts.onFree();
  }
}
