/** Three announcements of a process are lost before it counts as gone. */
const silentMs = 3500;
/** Who may publish may invent names; beyond so many, new ones are not taken. */
const maxHolders = 100;

/**
 * Which of the processes that live hold a generation. `unknown`: none lives, as far as is known.
 */
export type Holding = 'all' | 'some' | 'none' | 'unknown';

/** The processes of one service, and which generations of the route config each of them holds. */
export class Holders {
  readonly #known = new Map<string, { heardAt: number; readonly generations: readonly string[] }>();

  /** Records what a process holds; `now` in monotonic milliseconds. */
  hear(process: string, generations: readonly string[], now: number): void {
    if (this.#known.size >= maxHolders && !this.#known.has(process)) {
      this.#forget(now);
      if (this.#known.size >= maxHolders) return;
    }
    this.#known.set(process, { heardAt: now, generations });
  }

  /** It said that it ends. */
  forget(process: string): void {
    this.#known.delete(process);
  }

  holding(generation: string, now: number): Holding {
    this.#forget(now);
    let holding = 0;
    for (const { generations } of this.#known.values()) if (generations.includes(generation)) holding++;
    if (this.#known.size === 0) return 'unknown';
    return holding === this.#known.size ? 'all' : holding === 0 ? 'none' : 'some';
  }

  /** The names of those that hold a generation. */
  *having(generation: string, now: number): Iterable<string> {
    this.#forget(now);
    for (const [process, { generations }] of this.#known) if (generations.includes(generation)) yield process;
  }

  #forget(now: number): void {
    for (const [process, { heardAt }] of this.#known) if (now - heardAt >= silentMs) this.#known.delete(process);
  }
}
