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
  /** Where its JSON begins and ends in the store. */
  readonly from: number;
  readonly to: number;
}

const maxRequests = 10_000;
const storeBytes = 8 * 1024 * 1024;
const maxWords = 10;
/** So many blocks that were let go are cut off at once. */
const cutAt = 256;

/** The last 10,000 requests that ingresses reported, or as many as fit into 8 MiB. */
export class Requests {
  /** The oldest first; those before `#first` were let go. */
  #blocks: (Block | undefined)[] = [];
  #first = 0;
  #count = 0;
  /**
   * JSON, block behind block, over and over: as objects 10,000 requests would take several times the
   * memory, and the collector's time.
   */
  readonly #store = Buffer.allocUnsafeSlow(storeBytes);
  /** Where the next block begins. */
  #next = 0;
  /** How many there were in all. */
  total = 0;

  add({ ingress, every, generation, requests }: RequestReport): void {
    if (requests.length === 0) return;
    const text = JSON.stringify(requests);
    const bytes = Buffer.byteLength(text);
    this.total += requests.length;
    if (bytes > storeBytes) return;
    if (this.#next + bytes > storeBytes) {
      // What is left of the last round stands behind, and is the oldest.
      const { length: end } = this.#store;
      this.#release(this.#next, end);
      this.#next = 0;
    }
    const [from, to] = [this.#next, this.#next + bytes];
    this.#release(from, to);
    this.#store.write(text, from);
    this.#next = to;
    this.#blocks.push({ ingress, every, generation, count: requests.length, from, to });
    this.#count += requests.length;
    for (let oldest = this.#blocks[this.#first]; oldest !== undefined; oldest = this.#blocks[this.#first]) {
      if (this.#count - oldest.count < maxRequests) break;
      this.#drop(oldest);
    }
    if (this.#first >= cutAt) {
      this.#blocks = this.#blocks.slice(this.#first);
      this.#first = 0;
    }
  }

  /** Makes room there: the oldest blocks stand in the order in which they are overwritten. */
  #release(from: number, to: number): void {
    for (let oldest = this.#blocks[this.#first]; oldest !== undefined; oldest = this.#blocks[this.#first]) {
      if (oldest.from >= to || oldest.to <= from) break;
      this.#drop(oldest);
    }
  }

  #drop(oldest: Block): void {
    this.#blocks[this.#first++] = undefined;
    this.#count -= oldest.count;
  }

  #rowsOf({ ingress, every, generation, from, to }: Block): RequestRow[] {
    const summaries = JSON.parse(this.#store.toString('utf8', from, to)) as RequestSummary[];
    return summaries.map((summary) => ({ ...summary, ingress, every, generation }));
  }

  /** Whether some request of the block could have all the words, before they are read. */
  #mayHave({ ingress, from, to }: Block, words: readonly string[]): boolean {
    if (words.length === 0) return true;
    const text = this.#store.toString('latin1', from, to).toLowerCase();
    const name = ingress.toLowerCase();
    return words.every((word) => text.includes(word) || name.includes(word));
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
      if (this.#mayHave(block, words)) {
        for (const row of this.#rowsOf(block).reverse().slice(0, left)) {
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
      if (block === undefined || !this.#store.subarray(block.from, block.to).includes(written)) continue;
      const row = this.#rowsOf(block).findLast((one) => one.id === id);
      if (row !== undefined) return row;
    }
    return undefined;
  }
}

/** The requests of a report as they are shown, the oldest first. */
export function rowsOfReport({ ingress, every, generation, requests }: RequestReport): RequestRow[] {
  return requests.map((summary) => ({ ...summary, ingress, every, generation }));
}

function wordsOf({ text = '' }: RequestFilter): string[] {
  return text.toLowerCase().split(/\s+/).filter(Boolean).slice(0, maxWords);
}

/** Those that JSON writes as they are, and that no row has without a field that says so. */
function plainWords(filter: RequestFilter): string[] {
  return wordsOf(filter).filter((word) => /^[\w.:-]+$/.test(word) && !'retried'.includes(word));
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
