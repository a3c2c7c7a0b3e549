import type { RouteTable } from './route-table.ts';

/** The newest ones are held whether anybody asks for them or not. */
const alwaysHeld = 2;
/** An older one is held for as long as somebody asks for it, so long after the last time. */
const usedMs = 10_000;

interface Held {
  readonly table: RouteTable;
  /** Monotonic milliseconds. */
  usedAtMs: number;
}

/**
 * The route tables that a process answers for while others still hold an earlier one: the two
 * newest, and older ones that are in use.
 */
export class HeldTables {
  readonly #maxHeld: number;
  readonly #generationOf: (table: RouteTable) => string;
  /** The newest first. */
  #held: readonly Held[];

  /** @param options.generationOf the fingerprint by which others name a table */
  constructor(
    first: RouteTable,
    options: { readonly maxHeld: number; readonly generationOf?: (table: RouteTable) => string },
  ) {
    this.#held = [{ table: first, usedAtMs: Number.NEGATIVE_INFINITY }];
    this.#maxHeld = options.maxHeld;
    this.#generationOf = options.generationOf ?? (({ generation }) => generation);
  }

  get newest(): RouteTable {
    const [first] = this.#held;
    if (first === undefined) throw new Error('no table is held');
    return first.table;
  }

  /** The newest first. */
  get generations(): readonly string[] {
    return this.#held.map(({ table }) => this.#generationOf(table));
  }

  /** The table that is named, which is in use at `now` (monotonic milliseconds). */
  find(generation: string, now: number): RouteTable | undefined {
    for (const held of this.#held) {
      if (this.#generationOf(held.table) !== generation) continue;
      held.usedAtMs = now;
      return held.table;
    }
    return undefined;
  }

  /** Holds a newer table. One of the same generation has other keys: it takes the other's place. */
  take(table: RouteTable, now: number): void {
    const generation = this.#generationOf(table);
    const others = this.#held.filter((held) => this.#generationOf(held.table) !== generation);
    this.#held = [{ table, usedAtMs: now }, ...others]
      .filter(({ usedAtMs }, at) => at < alwaysHeld || now - usedAtMs < usedMs)
      .slice(0, this.#maxHeld);
  }

  /** Whether some request may go to an instance of discovery. */
  get needsInstances(): boolean {
    return this.#held.some(({ table }) => table.policy === 'off' || table.endpoints.some(({ local }) => local));
  }
}
