import type { RequestReport, RequestSummary } from '@llm-gateway/protocol';

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

/** The requests of one report. */
interface Block {
  readonly ingress: string;
  readonly every: number;
  readonly generation: string;
  readonly count: number;
  /** JSON: as objects, 10,000 requests would take several times the memory, and the collector's time. */
  readonly bytes: Buffer;
}

const maxRequests = 10_000;
const maxBytes = 16 * 1024 * 1024;
const maxWords = 10;
/** So many blocks that were let go are cut off at once. */
const cutAt = 256;

/** The last 10,000 requests that ingresses reported, or as many as fit into 16 MiB. */
export class Requests {
  /** The oldest first; those before `#first` were let go. */
  #blocks: (Block | undefined)[] = [];
  #first = 0;
  #count = 0;
  #bytes = 0;
  /** How many there were in all. */
  total = 0;

  add({ ingress, every, generation, requests }: RequestReport): void {
    if (requests.length === 0) return;
    const bytes = Buffer.from(JSON.stringify(requests));
    this.#blocks.push({ ingress, every, generation, count: requests.length, bytes });
    this.total += requests.length;
    this.#count += requests.length;
    this.#bytes += bytes.length;
    for (let oldest = this.#blocks[this.#first]; oldest !== undefined; oldest = this.#blocks[this.#first]) {
      if (this.#count - oldest.count < maxRequests && this.#bytes <= maxBytes) break;
      this.#blocks[this.#first++] = undefined;
      this.#count -= oldest.count;
      this.#bytes -= oldest.bytes.length;
    }
    if (this.#first >= cutAt) {
      this.#blocks = this.#blocks.slice(this.#first);
      this.#first = 0;
    }
  }

  /** The newest first. */
  latest(max: number, filter: RequestFilter = {}): RequestRow[] {
    const matches = matcher(filter);
    const words = plainWords(filter);
    const found: RequestRow[] = [];
    let left = maxRequests;
    for (let at = this.#blocks.length - 1; at >= this.#first && left > 0 && found.length < max; at--) {
      const block = this.#blocks[at];
      if (block === undefined) break;
      if (mayHave(block, words)) {
        for (const row of rowsOf(block).reverse().slice(0, left)) {
          if (found.length < max && matches(row)) found.push(row);
        }
      }
      left -= block.count;
    }
    return found;
  }

  get(id: string): RequestRow | undefined {
    const written = Buffer.from(`"id":${JSON.stringify(id)}`);
    for (let at = this.#blocks.length - 1; at >= this.#first; at--) {
      const block = this.#blocks[at];
      if (!block?.bytes.includes(written)) continue;
      const row = rowsOf(block).findLast((one) => one.id === id);
      if (row !== undefined) return row;
    }
    return undefined;
  }
}

/** The requests of a report as they are shown, the oldest first. */
export function rowsOfReport({ ingress, every, generation, requests }: RequestReport): RequestRow[] {
  return requests.map((summary) => ({ ...summary, ingress, every, generation }));
}

function rowsOf({ ingress, every, generation, bytes }: Block): RequestRow[] {
  const summaries = JSON.parse(bytes.toString()) as RequestSummary[];
  return summaries.map((summary) => ({ ...summary, ingress, every, generation }));
}

function wordsOf({ text = '' }: RequestFilter): string[] {
  return text.toLowerCase().split(/\s+/).filter(Boolean).slice(0, maxWords);
}

/** Those that JSON writes as they are, and that no row has without a field that says so. */
function plainWords(filter: RequestFilter): string[] {
  return wordsOf(filter).filter((word) => /^[\w.:-]+$/.test(word) && !'retried'.includes(word));
}

/** Whether some request of the block could have all the words, before they are read. */
function mayHave({ ingress, bytes }: Block, words: readonly string[]): boolean {
  if (words.length === 0) return true;
  const text = bytes.toString('latin1').toLowerCase();
  const name = ingress.toLowerCase();
  return words.every((word) => text.includes(word) || name.includes(word));
}

/** Whether a row has all the words. */
export function matcher(filter: RequestFilter): (row: RequestRow) => boolean {
  const words = wordsOf(filter);
  if (words.length === 0) return () => true;
  return (row) => {
    const attempts = row.attempts.map(({ target, outcome, cause }) => `${target} ${outcome} ${cause}`).join(' ');
    const state = row.attemptCount > 1 ? 'retried' : '';
    const hay =
      `${row.id} ${row.model ?? ''} ${row.path} ${row.status} ${row.outcome} ${row.code ?? ''} ${row.brokenBy ?? ''} ${row.route} ${row.endpoint} ${row.client ?? ''} ${row.ingress} ${state} ${attempts}`.toLowerCase();
    return words.every((word) => hay.includes(word));
  };
}
