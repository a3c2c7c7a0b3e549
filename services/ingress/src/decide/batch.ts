import { setImmediate } from 'node:timers';
import { GatewayError } from '@llm-gateway/protocol';

export interface BatchOptions<Item> {
  /** A larger batch is sent in parts, one after the other. */
  readonly maxBatch: number;
  /**
   * So is one whose items are larger together; a single one is sent whatever its size. Asked for
   * each batch.
   */
  readonly maxBytes?: () => number;
  readonly bytesOf?: (item: Item) => number;
  readonly onBatch?: (size: number) => void;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly signal: AbortSignal | undefined;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Gathers what is asked for in one turn of the event loop into one `send`, whose results come in
 * the order of the items. At most one batch is in flight; what is asked meanwhile waits for it and
 * goes together, so batches grow with the load. An item whose signal aborts rejects with
 * `client_closed` and, when its batch has not left yet, is not sent. When `send` rejects, or
 * answers with another number of results, all items of that batch reject; failures of single items
 * belong in `Result`.
 */
export function batched<Item, Result>(
  send: (items: Item[]) => Promise<readonly Result[]>,
  options: BatchOptions<Item>,
): (item: Item, signal?: AbortSignal) => Promise<Result> {
  let waiting: Waiting<Item, Result>[] = [];
  let scheduled = false;
  let inFlight = false;

  function schedule(): void {
    if (scheduled || inFlight || waiting.length === 0) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      void flush();
    });
  }

  async function flush(): Promise<void> {
    const batch = takeBatch();
    if (batch.length === 0) return;
    inFlight = true;
    try {
      options.onBatch?.(batch.length);
      const results = await send(batch.map(({ item }) => item));
      if (results.length !== batch.length) {
        throw new GatewayError('invalid_message', `a batch of ${batch.length} asks got ${results.length} results`);
      }
      for (const [index, result] of results.entries()) batch[index]?.resolve(result);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    } finally {
      inFlight = false;
      schedule();
    }
  }

  function takeBatch(): Waiting<Item, Result>[] {
    const present = waiting.filter(({ signal }) => !signal?.aborted);
    const size = Math.min(options.maxBatch, fitting(present));
    waiting = present.slice(size);
    return present.slice(0, size);
  }

  /** How many of them fit together. */
  function fitting(present: readonly Waiting<Item, Result>[]): number {
    const { maxBytes, bytesOf } = options;
    if (maxBytes === undefined || bytesOf === undefined) return present.length;
    let left = maxBytes();
    for (let at = 0; at < present.length && at < options.maxBatch; at++) {
      left -= bytesOf((present[at] as Waiting<Item, Result>).item);
      if (left < 0) return Math.max(1, at);
    }
    return present.length;
  }

  return (item, signal) => {
    if (signal?.aborted) return Promise.reject(asClosed(signal));
    return new Promise((resolve, reject) => {
      const entry: Waiting<Item, Result> = { item, signal, resolve, reject };
      if (signal !== undefined) {
        const onAbort = () => reject(asClosed(signal));
        signal.addEventListener('abort', onAbort, { once: true });
        entry.resolve = (result) => {
          signal.removeEventListener('abort', onAbort);
          resolve(result);
        };
        entry.reject = (error) => {
          signal.removeEventListener('abort', onAbort);
          reject(error);
        };
      }
      waiting.push(entry);
      schedule();
    });
  };
}

function asClosed(signal: AbortSignal): GatewayError {
  return new GatewayError('client_closed', 'the caller cancelled the request', { cause: signal.reason });
}
