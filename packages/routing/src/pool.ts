import type { Instance, Role } from '@llm-gateway/protocol';

/** The instances that can take one role for one model, sorted by id, as slots of the fleet's score array. */
export class Pool {
  readonly role: Role;
  /** A model that some instance declares; empty: one that none declares; null: any will do. */
  readonly model: string | null;
  #slots = new Int32Array(0);
  #ids: string[] = [];
  /** Where the next turn begins. */
  #cursor = 0;
  #lastId = '';

  constructor(role: Role, model: string | null) {
    this.role = role;
    this.model = model;
  }

  get slots(): Int32Array {
    return this.#slots;
  }

  /** An instance that declares a model serves only that one. */
  takes(instance: Instance): boolean {
    if (!instance.roles.includes(this.role)) return false;
    return this.model === null || instance.model === '' || instance.model === this.model;
  }

  /** Takes a new list, sorted by id, whose places are the slots. The turn goes on after the instance that had it last. */
  fill(sorted: readonly Instance[]): void {
    const slots: number[] = [];
    for (const [slot, instance] of sorted.entries()) if (this.takes(instance)) slots.push(slot);
    this.#slots = Int32Array.from(slots);
    this.#ids = slots.map((slot) => sorted[slot]?.id ?? '');
    this.#cursor = Math.max(
      this.#ids.findIndex((id) => id > this.#lastId),
      0,
    );
  }

  /**
   * The slot with the lowest score, the next in turn among equals; -1 when the pool is empty. A score of 0 is the lowest
   * there is, so that the usual turn of round-robin looks at one slot.
   */
  choose(scores: Float64Array): number {
    const slots = this.#slots;
    const start = this.#cursor;
    let best = -1;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let at = start; at < slots.length && bestScore > 0; at++) {
      const score = scores[slots[at] as number] as number;
      if (score < bestScore) {
        bestScore = score;
        best = at;
      }
    }
    for (let at = 0; at < start && bestScore > 0; at++) {
      const score = scores[slots[at] as number] as number;
      if (score < bestScore) {
        bestScore = score;
        best = at;
      }
    }
    if (best === -1) return -1;
    this.#lastId = this.#ids[best] as string;
    this.#cursor = best + 1 === slots.length ? 0 : best + 1;
    return slots[best] as number;
  }
}
