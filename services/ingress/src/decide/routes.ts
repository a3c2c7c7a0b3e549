import type { RouteTable } from '@llm-gateway/routing';
import type { Holding } from './holders.ts';

/** How often is looked whether the processes that still need the table in use are gone. */
const lookMs = 500;
/** A newer table that waits for so long is worth a line. */
const lateMs = 60_000;

interface RoutesParts {
  /** For each service that an ingress needs to hold its table: how many of its processes do. */
  readonly holding: readonly ((table: RouteTable) => Holding)[];
  /** A newer table is in use from now on. */
  readonly onUse: (table: RouteTable) => void;
  readonly onLate: (table: RouteTable) => void;
}

/**
 * The route table that new requests are decided by. A newer one waits until a router can decide by
 * it, so that no request has to be decided without one; it is used at once where none could decide
 * by the old one either. A request keeps the table that it began with.
 */
export class Routes implements Disposable {
  readonly #parts: RoutesParts;
  #current: RouteTable;
  #next: RouteTable | null = null;
  #nextSinceMs = 0;
  #toldLate = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(first: RouteTable, parts: RoutesParts) {
    this.#current = first;
    this.#parts = parts;
  }

  get current(): RouteTable {
    return this.#current;
  }

  /** The newest first. */
  get generations(): readonly string[] {
    const { generation } = this.#current;
    return this.#next === null ? [generation] : [this.#next.generation, generation];
  }

  /** Whether a newer table waits for a router that has it. */
  get waiting(): boolean {
    return this.#next !== null;
  }

  take(table: RouteTable): void {
    // Nothing but keys differs, or an earlier text came back.
    if (table.generation === this.#current.generation) {
      this.#use(table);
      return;
    }
    this.#next = table;
    this.#nextSinceMs = performance.now();
    this.#toldLate = false;
    this.#timer ??= setInterval(() => this.look(), lookMs).unref();
    this.look();
  }

  /** Others may hold other tables than before. */
  look(): void {
    const next = this.#next;
    if (next === null) return;
    const { holding, onLate } = this.#parts;
    const isReady = holding.every((of) => {
      const held = of(next);
      if (held === 'all' || held === 'some') return true;
      const old = of(this.#current);
      return old === 'none' || old === 'unknown';
    });
    if (isReady) this.#use(next);
    else if (!this.#toldLate && performance.now() - this.#nextSinceMs >= lateMs) {
      this.#toldLate = true;
      onLate(next);
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #use(table: RouteTable): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#next = null;
    this.#current = table;
    this.#parts.onUse(table);
  }
}
