/**
 * A run of refusals is the instance's own when the others would refuse as many in a row with less
 * than this probability.
 */
const maxChance = 0.0001;
/** No shorter run says anything: a client's mistake is often tried again. */
const minRun = 3;
/** Half-life of observations, so that old successes do not hide a fault. */
const halfLifeMs = 30_000;
/** What is left of one request after five minutes; less is forgotten. */
const minWeight = 0.001;
/** Kinds of requests that are remembered; beyond it the least recently served one is forgotten. */
const maxKinds = 64;
/** Instances that are remembered of each. */
const maxInstances = 2000;
const maxKindChars = 300;

interface Seen {
  served: number;
  refused: number;
  /** Refusals since it last served one. */
  run: number;
}

interface Kind {
  since: number;
  readonly instances: Map<string, Seen>;
}

/**
 * Tells an instance that refuses (401, 403, 404) what others serve from a client's own mistake,
 * which all of them refuse. A *kind* is what requests have in common that all instances should
 * serve alike: the path and the model. Only kinds that some instance served are remembered, so that
 * words of clients do not fill the memory.
 *
 * Clients with wrong keys are refused by healthy instances, too. So a run of refusals is compared
 * with the share that the others refuse: three in a row are a fault where the others refuse next to
 * nothing, not where they refuse every second.
 */
export class Refusals {
  /** The least recently served first. */
  readonly #kinds = new Map<string, Kind>();
  /** The one that was served last. */
  #latest: { readonly name: string; readonly kind: Kind } | undefined;

  /** `now` in monotonic milliseconds. */
  served(instance: string, name: string, now: number): void {
    if (name.length > maxKindChars) return;
    const kind = this.#latest?.name === name ? this.#latest.kind : this.#renew(name, now);
    age(kind, now);
    const seen = seenOf(kind, instance);
    seen.served += 1;
    seen.run = 0;
  }

  /** The kind of this name, from now on the last one to be forgotten. */
  #renew(name: string, now: number): Kind {
    const kind = this.#kinds.get(name) ?? { since: now, instances: new Map() };
    this.#kinds.delete(name);
    this.#kinds.set(name, kind);
    if (this.#kinds.size > maxKinds) this.#kinds.delete(this.#kinds.keys().next().value ?? '');
    this.#latest = { name, kind };
    return kind;
  }

  /** Whether the refusal is the instance's own fault. */
  refused(instance: string, name: string, now: number): boolean {
    const kind = this.#kinds.get(name);
    if (kind === undefined) return false;
    age(kind, now);
    const seen = seenOf(kind, instance);
    seen.refused += 1;
    seen.run += 1;
    return seen.run >= minRun && refusedShare(kind, instance) ** seen.run < maxChance;
  }
}

/** The share that the others refuse of those that serve any; 1 when there is none. */
function refusedShare({ instances }: Kind, except: string): number {
  let served = 0;
  let refused = 0;
  for (const [instance, seen] of instances) {
    if (instance === except || seen.served < minWeight) continue;
    served += seen.served;
    refused += seen.refused;
  }
  // The rule of succession: what was never seen is not impossible.
  return served === 0 ? 1 : (refused + 1) / (served + refused + 2);
}

function seenOf({ instances }: Kind, instance: string): Seen {
  let seen = instances.get(instance);
  if (seen === undefined) {
    if (instances.size >= maxInstances) instances.delete(instances.keys().next().value ?? '');
    seen = { served: 0, refused: 0, run: 0 };
    instances.set(instance, seen);
  }
  return seen;
}

function age(kind: Kind, now: number): void {
  if (now - kind.since < halfLifeMs) return;
  kind.since = now;
  for (const [instance, seen] of kind.instances) {
    seen.served /= 2;
    seen.refused /= 2;
    if (seen.served + seen.refused < minWeight) kind.instances.delete(instance);
  }
}
