import { type Instance, isTakenOut, type Role, servedModels } from '@llm-gateway/protocol';
import { rendezvousWeight } from './rendezvous.ts';

/**
 * Probes that may follow one another at once, so that a few instances that are due are tried
 * without delay.
 */
const maxProbes = 4;
/**
 * What each choice earns of a probe: where most are dead, at most one request of so many finds out
 * that they still are.
 */
const choicesPerProbe = 16;

/**
 * The instances that can take one role for one model, sorted by id, as slots of the fleet's score
 * array.
 */
export class Pool {
  readonly role: Role;
  /**
   * A model that some instance names or has named; empty: one that none ever did; null: any will
   * do.
   */
  readonly model: string | null;
  #slots = new Int32Array(0);
  #ids: string[] = [];
  /** Where the next turn begins. */
  #cursor = 0;
  #lastId = '';
  /**
   * Whether an instance that lists its models is asked for one that none ever named: only where
   * there is no other.
   */
  #takesListed = true;
  /**
   * Whether an instance that says nothing of its models is asked for this one: only where no other
   * names it.
   */
  #takesSilent = true;
  /** In choices, so that they add up exactly. */
  #probeCredit = maxProbes * choicesPerProbe;

  constructor(role: Role, model: string | null) {
    this.role = role;
    this.model = model;
  }

  get slots(): Int32Array {
    return this.#slots;
  }

  takes(instance: Instance): boolean {
    return instance.roles.includes(this.role) && this.serves(instance);
  }

  serves(instance: Instance): boolean {
    if (!serves(instance, this.model)) return false;
    return servedModels(instance) === null ? this.#takesSilent : this.model !== '' || this.#takesListed;
  }

  /** Whether one of the requests to this pool may be a probe now. */
  get mayProbe(): boolean {
    return this.#probeCredit >= choicesPerProbe;
  }

  countProbe(): void {
    this.#probeCredit -= choicesPerProbe;
  }

  /**
   * Takes a new list, sorted by id, whose places are the slots. The turn goes on after the instance
   * that had it last.
   */
  fill(sorted: readonly Instance[]): void {
    const { role, model } = this;
    const isSilent = (instance: Instance) => servedModels(instance) === null;
    const available = sorted.filter((instance) => instance.roles.includes(role) && !isTakenOut(instance));
    this.#takesListed = !available.some(isSilent);
    this.#takesSilent = !model || !available.some((instance) => !isSilent(instance) && serves(instance, model));
    const slots: number[] = [];
    for (const [slot, instance] of sorted.entries()) if (this.takes(instance)) slots.push(slot);
    this.#slots = Int32Array.from(slots);
    this.#ids = slots.map((slot) => sorted[slot]?.id ?? '');
    this.#cursor = Math.max(
      this.#ids.findIndex((id) => id > this.#lastId),
      0,
    );
  }

  /** Takes the slot of `best`; -1 when the pool is empty. */
  choose(scores: Float64Array): number {
    const at = this.best(scores);
    return at === -1 ? -1 : this.take(at);
  }

  /**
   * The place in `slots` of the lowest score, the next in turn among equals; -1 when the pool is
   * empty. Nothing is taken yet. A score of 0 is the lowest there is, so that the usual turn of
   * round-robin looks at one slot; with another `lowest` the search ends there.
   */
  best(scores: Float64Array, lowest = 0): number {
    const slots = this.#slots;
    const start = this.#cursor;
    let best = -1;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let at = start; at < slots.length && bestScore > lowest; at++) {
      const score = scores[slots[at] as number] as number;
      if (score < bestScore) {
        bestScore = score;
        best = at;
      }
    }
    for (let at = 0; at < start && bestScore > lowest; at++) {
      const score = scores[slots[at] as number] as number;
      if (score < bestScore) {
        bestScore = score;
        best = at;
      }
    }
    return best;
  }

  /**
   * The place in `slots` that the key of this hash belongs to: of those whose score is below
   * `limit` and that `hasRoom`, the one that all who share the list agree on. -1 when there is
   * none.
   */
  bestBy(
    key: number,
    {
      scores,
      limit,
      hashes,
      hasRoom,
    }: { scores: Float64Array; limit: number; hashes: Uint32Array; hasRoom: (slot: number) => boolean },
  ): number {
    const slots = this.#slots;
    let best = -1;
    let most = -1;
    for (let at = 0; at < slots.length; at++) {
      const slot = slots[at] as number;
      if ((scores[slot] as number) >= limit) continue;
      const weight = rendezvousWeight(key, hashes[slot] as number);
      if (weight <= most || !hasRoom(slot)) continue;
      best = at;
      most = weight;
    }
    return best;
  }

  /** Takes the slot at a place. The turn goes on behind it. */
  take(best: number): number {
    const slots = this.#slots;
    this.#probeCredit = Math.min(this.#probeCredit + 1, maxProbes * choicesPerProbe);
    this.#lastId = this.#ids[best] as string;
    this.#cursor = best + 1 === slots.length ? 0 : best + 1;
    return slots[best] as number;
  }
}

/**
 * Whether an instance serves what a pool is for; see `Pool.model`. One that declares its model
 * serves no other but those that it lists. One that declares none may serve models that it does not
 * list, as some engines do: where no instance has named the model, its own answer is the truth.
 */
export function serves(instance: Instance, model: string | null): boolean {
  if (model === null) return true;
  if (model === '') return instance.model === '';
  if (instance.models === undefined) return instance.model === '' || instance.model === model;
  return instance.models.includes(model) || instance.model === model;
}
