import { latencyOfBucket, type RequestCounts, type RequestTotals, requestCounts } from '@llm-gateway/protocol';

const buckets = 168;
const fields = requestCounts.length;
const column = Object.fromEntries(requestCounts.map((name, at) => [name, at])) as Readonly<RequestCounts>;

/**
 * Columns of numbers, oldest first. A second without a report has zeros; times
 * without answers are null.
 */
export interface Columns {
  /** Seconds since 1970. */
  readonly at: number[];
  readonly requests: number[];
  readonly errors: number[];
  readonly cancelled: number[];
  readonly chunks: number[];
  readonly tokens: number[];
  readonly inFlight: number[];
  readonly firstByteP50: (number | null)[];
  readonly firstByteP95: (number | null)[];
  readonly firstByteP99: (number | null)[];
}

/** What a span of time had, as rates a second and shares. */
export interface Window {
  readonly seconds: number;
  readonly counts: RequestCounts;
  readonly firstByteMs: { readonly p50: number | null; readonly p95: number | null; readonly p99: number | null };
}

/**
 * Counts over time in slots of equal length: a ring that holds the last of them and no more. All
 * slots are in a few arrays of numbers, so that they cost what their numbers do.
 */
export class Series {
  readonly #steps: number;
  readonly #stepMs: number;
  /** Which second or minute since 1970 a slot is for; -1: none yet. */
  readonly #at: Float64Array;
  readonly #inFlight: Float64Array;
  readonly #counts: Float64Array;
  readonly #firstByte: Uint32Array;

  /** @param span `steps` slots of `stepMs` each */
  constructor({ steps, stepMs }: { readonly steps: number; readonly stepMs: number }) {
    this.#steps = steps;
    this.#stepMs = stepMs;
    this.#at = new Float64Array(steps).fill(-1);
    this.#inFlight = new Float64Array(steps);
    this.#counts = new Float64Array(steps * fields);
    this.#firstByte = new Uint32Array(steps * buckets);
  }

  add(totals: readonly RequestTotals[], nowMs: number): void {
    const slot = this.#slot(nowMs);
    const [counts, firstByte] = [this.#countsOf(slot), this.#firstByteOf(slot)];
    for (const each of totals) {
      for (const [at, name] of requestCounts.entries()) counts[at] = (counts[at] ?? 0) + (each[name] ?? 0);
      for (const [bucket, count] of each.firstByte) {
        if (bucket < buckets) firstByte[bucket] = (firstByte[bucket] ?? 0) + count;
      }
    }
  }

  inFlight(count: number, nowMs: number): void {
    const slot = this.#slot(nowMs);
    this.#inFlight[slot] = Math.max(this.#inFlight[slot] ?? 0, count);
  }

  #slot(nowMs: number): number {
    const at = Math.floor(nowMs / this.#stepMs);
    const slot = at % this.#steps;
    if (this.#at[slot] !== at) {
      this.#at[slot] = at;
      this.#inFlight[slot] = 0;
      this.#countsOf(slot).fill(0);
      this.#firstByteOf(slot).fill(0);
    }
    return slot;
  }

  #countsOf(slot: number): Float64Array {
    return this.#counts.subarray(slot * fields, (slot + 1) * fields);
  }

  #firstByteOf(slot: number): Uint32Array {
    return this.#firstByte.subarray(slot * buckets, (slot + 1) * buckets);
  }

  /** The last `seconds` before `nowMs`, without the slot that is not over yet. */
  window(seconds: number, nowMs: number): Window {
    const steps = Math.max(1, Math.round((seconds * 1000) / this.#stepMs));
    const sums = new Float64Array(fields);
    const firstByte = new Uint32Array(buckets);
    for (const slot of this.#last(steps, nowMs)) {
      if (slot === null) continue;
      for (const [at, count] of this.#countsOf(slot).entries()) sums[at] = (sums[at] ?? 0) + count;
      for (const [at, count] of this.#firstByteOf(slot).entries()) firstByte[at] = (firstByte[at] ?? 0) + count;
    }
    const counts = Object.fromEntries(requestCounts.map((name, at) => [name, sums[at] ?? 0])) as RequestCounts;
    const [p50, p95, p99] = quantiles(firstByte);
    return { seconds: (steps * this.#stepMs) / 1000, counts, firstByteMs: { p50, p95, p99 } };
  }

  /** @param last how many slots, all of them by default */
  columns(nowMs: number, last = this.#steps - 1): Columns {
    const columns: Columns = {
      at: [],
      requests: [],
      errors: [],
      cancelled: [],
      chunks: [],
      tokens: [],
      inFlight: [],
      firstByteP50: [],
      firstByteP95: [],
      firstByteP99: [],
    };
    const steps = Math.min(last, this.#steps - 1);
    const end = Math.floor(nowMs / this.#stepMs);
    const perSecond = 1000 / this.#stepMs;
    let at = end - steps;
    for (const slot of this.#last(steps, nowMs)) {
      const count = (name: keyof RequestCounts) =>
        slot === null ? 0 : (this.#counts[slot * fields + column[name]] ?? 0);
      const [p50, p95, p99] = slot === null ? [null, null, null] : quantiles(this.#firstByteOf(slot));
      const all = count('completed') + count('rejected') + count('failed') + count('cancelled');
      columns.at.push((at * this.#stepMs) / 1000);
      columns.requests.push(all * perSecond);
      columns.errors.push(count('failed') * perSecond);
      columns.cancelled.push(count('cancelled') * perSecond);
      columns.chunks.push(count('chunks') * perSecond);
      columns.tokens.push(count('completionTokens') * perSecond);
      columns.inFlight.push(slot === null ? 0 : (this.#inFlight[slot] ?? 0));
      columns.firstByteP50.push(p50);
      columns.firstByteP95.push(p95);
      columns.firstByteP99.push(p99);
      at++;
    }
    return columns;
  }

  /** The `steps` slots before the current one, oldest first; null without a report. */
  *#last(steps: number, nowMs: number): Generator<number | null> {
    const end = Math.floor(nowMs / this.#stepMs);
    for (let at = end - Math.min(steps, this.#steps - 1); at < end; at++) {
      const slot = at % this.#steps;
      yield this.#at[slot] === at ? slot : null;
    }
  }
}

const shares = [0.5, 0.95, 0.99] as const;

function quantiles(counts: Uint32Array): [number | null, number | null, number | null] {
  let total = 0;
  for (const count of counts) total += count;
  if (total === 0) return [null, null, null];
  const found: (number | null)[] = [];
  let sum = 0;
  for (let bucket = 0; bucket < counts.length && found.length < shares.length; bucket++) {
    sum += counts[bucket] ?? 0;
    while (found.length < shares.length && sum >= (shares[found.length] ?? 1) * total) {
      found.push(Math.round(latencyOfBucket(bucket) * 100) / 100);
    }
  }
  const [p50 = null, p95 = null, p99 = null] = found;
  return [p50, p95, p99];
}
