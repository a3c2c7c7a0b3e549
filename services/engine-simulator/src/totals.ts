import type { Part } from './fault.ts';

/** Exact counts of what one kind of request cost, as its answers' usage says. */
export interface Tally {
  requests: number;
  promptTokens: number;
  completionTokens: number;
  /** Of the prompt tokens, those that were in the KV cache. */
  cachedTokens: number;
}

/**
 * What a model cost in one part: `finished` are the requests that were answered to their end, their
 * usage included.
 */
export interface ModelTotals {
  readonly model: string;
  readonly part: Part;
  readonly finished: Tally;
  /**
   * Given up or failed on the way: their prompt once its first token was computed, and the tokens
   * computed until then.
   */
  readonly unfinished: Tally;
}

/**
 * What all requests of a rank cost, by model and part. There are as many rows as models times
 * parts.
 */
export class Totals {
  readonly #rows = new Map<string, ModelTotals>();

  get rows(): ModelTotals[] {
    return [...this.#rows.values()];
  }

  /** The sum of a count over the rows of a model; of all models without one. */
  sum(outcome: 'finished' | 'unfinished', count: keyof Tally, model?: string): number {
    const rows = this.rows.filter((row) => model === undefined || row.model === model);
    return rows.reduce((sum, row) => sum + row[outcome][count], 0);
  }

  add(
    { model, part, outcome }: { model: string; part: Part; outcome: 'finished' | 'unfinished' },
    cost: Omit<Tally, 'requests'>,
  ): void {
    const key = `${part} ${model}`;
    let row = this.#rows.get(key);
    if (!row) {
      row = { model, part, finished: emptyTally(), unfinished: emptyTally() };
      this.#rows.set(key, row);
    }
    const tally = row[outcome];
    tally.requests += 1;
    tally.promptTokens += cost.promptTokens;
    tally.completionTokens += cost.completionTokens;
    tally.cachedTokens += cost.cachedTokens;
  }
}

function emptyTally(): Tally {
  return { requests: 0, promptTokens: 0, completionTokens: 0, cachedTokens: 0 };
}
