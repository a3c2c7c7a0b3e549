import type { RequestReport, RequestSummary } from '@llm-gateway/protocol';
import { Ring } from './ring.ts';

/** One request as it is shown. */
export interface RequestRow extends RequestSummary {
  readonly ingress: string;
  /** It stands for so many. */
  readonly every: number;
  readonly generation: string;
}

export interface RequestFilter {
  /**
   * Every word must be somewhere in the row: id, model, path, targets, causes, status, `failed`,
   * `retried`.
   */
  readonly text?: string;
}

const maxRequests = 10_000;

/** The last 10,000 requests that ingresses told of. */
export class Requests {
  readonly #ring = new Ring<RequestRow>(maxRequests);

  get total(): number {
    return this.#ring.total;
  }

  add(report: RequestReport): RequestRow[] {
    const { ingress, every, generation } = report;
    const rows = report.requests.map((summary) => ({ ...summary, ingress, every, generation }));
    for (const row of rows) this.#ring.push(row);
    return rows;
  }

  /** The newest first. */
  latest(max: number, filter: RequestFilter = {}): RequestRow[] {
    const matches = matcher(filter);
    const found: RequestRow[] = [];
    this.#ring.backwards((row) => {
      if (matches(row)) found.push(row);
      return found.length < max;
    });
    return found;
  }

  get(id: string): RequestRow | undefined {
    let found: RequestRow | undefined;
    this.#ring.backwards((row) => {
      if (row.id === id) found = row;
      return found === undefined;
    });
    return found;
  }
}

/** Whether a row has all the words. */
export function matcher({ text = '' }: RequestFilter): (row: RequestRow) => boolean {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean).slice(0, 10);
  if (words.length === 0) return () => true;
  return (row) => {
    const attempts = row.attempts.map(({ target, outcome, cause }) => `${target} ${outcome} ${cause}`).join(' ');
    const state = row.attemptCount > 1 ? 'retried' : '';
    const hay =
      `${row.id} ${row.model ?? ''} ${row.path} ${row.status} ${row.outcome} ${row.code ?? ''} ${row.brokenBy ?? ''} ${row.route} ${row.endpoint} ${row.client ?? ''} ${row.ingress} ${state} ${attempts}`.toLowerCase();
    return words.every((word) => hay.includes(word));
  };
}
