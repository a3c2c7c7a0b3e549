import { type AskedPrompt, Fingerprints, type PrefixPage, type PrefixQuery } from '@llm-gateway/protocol';
import { PrefixIndex } from './prefix-index.ts';

/** Nine characters each, so that a page is about 100 KB. */
const pageEntries = 10_000;
/**
 * An instance that had less than this part of what was expected of it, over so many answers in a
 * row, has lost its cache.
 */
const missShare = 0.5;
const missesToEmpty = 4;
const defaultMaxEntries = 1_000_000;
const defaultMaxAgeMs = 60 * 60_000;
/** Of an instance that does not say how much it holds: a million tokens. */
const defaultCapacityBytes = 4 * 1024 * 1024;

export interface CachesOptions {
  /**
   * Bytes of prompts that fit into the KV cache of one instance; left out: as many as its engine
   * says.
   */
  readonly capacityBytes?: number;
  readonly maxEntries?: number;
  readonly maxAgeMs?: number;
  /** Hears which prompts were sent where, for the other routers. */
  readonly onPlaced?: (instance: string, fingerprints: string) => void;
  /** Called for an instance that lost its expected cache. */
  readonly onLost?: (instance: string) => void;
}

/** What the KV caches of the instances are believed to hold. */
export class Caches {
  readonly #index: PrefixIndex;
  readonly #capacityBytes: number;
  readonly #learnsCapacity: boolean;
  readonly #onPlaced: (instance: string, fingerprints: string) => void;
  readonly #onLost: (instance: string) => void;
  readonly #numbers = new Map<string, number>();
  /** Answers in a row that had less cached than expected. */
  readonly #misses = new Map<string, number>();
  readonly #asked = new Fingerprints();
  readonly #told = new Fingerprints();
  #text = '';

  constructor(options: CachesOptions) {
    this.#index = new PrefixIndex({
      maxEntries: options.maxEntries ?? defaultMaxEntries,
      maxAgeMs: options.maxAgeMs ?? defaultMaxAgeMs,
    });
    this.#capacityBytes = options.capacityBytes ?? defaultCapacityBytes;
    this.#learnsCapacity = options.capacityBytes === undefined;
    this.#onPlaced = options.onPlaced ?? (() => {});
    this.#onLost = options.onLost ?? (() => {});
  }

  /** Prompt prefixes that the router remembers, over all instances. */
  get entries(): number {
    return this.#index.size;
  }

  /** An instance that is new begins with nothing. Answers the number that it has here. */
  add(instance: string): number {
    this.remove(instance);
    const number = this.#index.open(this.#capacityBytes);
    this.#numbers.set(instance, number);
    return number;
  }

  remove(instance: string): void {
    const number = this.#numbers.get(instance);
    if (number === undefined) return;
    this.#index.close(number);
    this.#numbers.delete(instance);
    this.#misses.delete(instance);
  }

  /** An engine says how many bytes of prompts fit into its cache. */
  learnCapacity(instance: string, capacityBytes: number): void {
    const number = this.#numbers.get(instance);
    if (this.#learnsCapacity && number !== undefined) this.#index.resize(number, capacityBytes);
  }

  /** The instance has lost its cache. */
  empty(instance: string): void {
    const number = this.#numbers.get(instance);
    if (number !== undefined) this.#index.empty(number);
  }

  /**
   * Looks for the instances that have some of the prompt, by their numbers: `cached` tells how
   * much. Good until the next call.
   */
  match({ fingerprints }: AskedPrompt): readonly number[] {
    this.#text = fingerprints ?? '';
    this.#asked.read(this.#text);
    this.#index.match(this.#asked);
    return this.#index.holders;
  }

  /** How many bytes of the prompt of the last `match` an instance has. */
  cached(number: number): number {
    return this.#index.cached(number);
  }

  /** The prompt of the last `match` goes to this instance. `now` in monotonic milliseconds. */
  place(instance: string, now: number): void {
    const number = this.#numbers.get(instance);
    if (number === undefined || this.#asked.count === 0) return;
    this.#index.place(number, this.#asked, now);
    this.#onPlaced(instance, this.#text);
  }

  /** Another router sent a prompt to an instance. */
  placed(instance: string, fingerprints: string, now: number): void {
    const number = this.#numbers.get(instance);
    if (number === undefined) return;
    this.#told.read(fingerprints);
    this.#index.place(number, this.#told, now);
  }

  /**
   * What an answer said was cached of what was expected, in bytes. One that keeps missing it has
   * restarted, or holds less than we think.
   */
  observe(instance: string, { expected, found }: { readonly expected: number; readonly found: number }): void {
    const number = this.#numbers.get(instance);
    if (number === undefined || expected <= 0) return;
    if (found >= missShare * expected) {
      this.#misses.delete(instance);
      return;
    }
    const misses = (this.#misses.get(instance) ?? 0) + 1;
    if (misses < missesToEmpty) {
      this.#misses.set(instance, misses);
      return;
    }
    this.#misses.delete(instance);
    this.#index.empty(number);
    this.#onLost(instance);
  }

  /** A part of all this for a router that starts, from where its query says. */
  page({ after }: PrefixQuery): Pick<PrefixPage, 'shelves' | 'next'> {
    const shelves: PrefixPage['shelves'] = [];
    let left = pageEntries;
    let skip = after?.entries ?? 0;
    for (const instance of [...this.#numbers.keys()].sort()) {
      if (after !== undefined && instance < after.instance) continue;
      if (instance !== after?.instance) skip = 0;
      const contents = this.#index.contents(this.#numbers.get(instance) ?? -1, skip, left);
      if (contents.length > 0) shelves.push({ instance, entries: written(contents) });
      left -= contents.length;
      if (left === 0) return { shelves, next: { instance, entries: skip + contents.length } };
    }
    return { shelves };
  }

  take(shelves: PrefixPage['shelves'], now: number): void {
    for (const { instance, entries } of shelves) {
      const number = this.#numbers.get(instance);
      if (number === undefined) continue;
      for (let at = 0; at < entries.length; at += partCharacters) {
        this.#told.read(entries.slice(at, at + partCharacters));
        this.#index.take(number, sizes(this.#told), now);
      }
    }
  }
}

/** Characters that `Fingerprints` reads at once. */
const partCharacters = 576;

/** As `Fingerprints` writes them, each covering more of the prompt than the one before. */
function written(contents: readonly { readonly key: number; readonly bytes: number }[]): string {
  const part = new Fingerprints();
  let text = '';
  let end = 0;
  for (const { key, bytes } of contents) {
    end += bytes;
    part.add(Math.floor(key / 2 ** 18), key % 2 ** 18, end);
    if (part.count * 9 < partCharacters) continue;
    text += part.write();
    part.count = 0;
    end = 0;
  }
  return text + part.write();
}

function sizes({ count, keys, ends }: Fingerprints): { key: number; bytes: number }[] {
  return Array.from({ length: count }, (_, at) => ({
    key: keys[at] as number,
    bytes: (ends[at] as number) - (at === 0 ? 0 : (ends[at - 1] as number)),
  }));
}
