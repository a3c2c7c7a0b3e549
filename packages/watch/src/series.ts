import { latencyOfBucket, type RequestTotals } from '@llm-gateway/protocol';

/** What one second or minute counts. */
export const counted = [
  'completed',
  'rejected',
  'failed',
  'cancelled',
  'retries',
  'chunks',
  'promptTokens',
  'cachedTokens',
  'completionTokens',
] as const;
export type Counted = (typeof counted)[number];
type Counts = Record<Counted, number>;

const buckets = 168;

class Slot {
  /** Which second or minute since 1970 it is for. */
  at = -1;
  inFlight = 0;
  readonly counts: Counts = emptyCounts();
  readonly firstByte = new Uint32Array(buckets);

  begin(at: number): void {
    this.at = at;
    this.inFlight = 0;
    Object.assign(this.counts, emptyCounts());
    this.firstByte.fill(0);
  }

  add(totals: readonly RequestTotals[]): void {
    for (const each of totals) {
      for (const name of counted) this.counts[name] += each[name] ?? 0;
      for (const [bucket, count] of each.firstByte) {
        if (bucket < buckets) this.firstByte[bucket] = (this.firstByte[bucket] ?? 0) + count;
      }
    }
  }
}

/**
 * Columns of numbers, the oldest first. A second in which nothing was heard has zeros; times
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
  readonly counts: Counts;
  readonly firstByteMs: { readonly p50: number | null; readonly p95: number | null; readonly p99: number | null };
}

/** Counts over time in slots of equal length: a ring that holds the last of them and no more. */
export class Series {
  readonly #slots: Slot[];
  readonly #stepMs: number;

  /** @param span `steps` slots of `stepMs` each */
  constructor({ steps, stepMs }: { readonly steps: number; readonly stepMs: number }) {
    this.#slots = Array.from({ length: steps }, () => new Slot());
    this.#stepMs = stepMs;
  }

  add(totals: readonly RequestTotals[], nowMs: number): void {
    this.#slot(nowMs).add(totals);
  }

  inFlight(count: number, nowMs: number): void {
    const slot = this.#slot(nowMs);
    slot.inFlight = Math.max(slot.inFlight, count);
  }

  #slot(nowMs: number): Slot {
    const at = Math.floor(nowMs / this.#stepMs);
    const slot = this.#slots[at % this.#slots.length] as Slot;
    if (slot.at !== at) slot.begin(at);
    return slot;
  }

  /** The last `seconds` before `nowMs`, without the slot that is not over yet. */
  window(seconds: number, nowMs: number): Window {
    const steps = Math.max(1, Math.round((seconds * 1000) / this.#stepMs));
    const counts = emptyCounts();
    const firstByte = new Uint32Array(buckets);
    for (const slot of this.#last(steps, nowMs)) {
      if (slot === null) continue;
      for (const name of counted) counts[name] += slot.counts[name];
      for (let at = 0; at < buckets; at++) firstByte[at] = (firstByte[at] ?? 0) + (slot.firstByte[at] ?? 0);
    }
    const [p50, p95, p99] = quantiles(firstByte);
    return { seconds: (steps * this.#stepMs) / 1000, counts, firstByteMs: { p50, p95, p99 } };
  }

  /** @param last how many slots, all of them by default */
  columns(nowMs: number, last = this.#slots.length - 1): Columns {
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
    const steps = Math.min(last, this.#slots.length - 1);
    const end = Math.floor(nowMs / this.#stepMs);
    const perSecond = 1000 / this.#stepMs;
    let at = end - steps;
    for (const slot of this.#last(steps, nowMs)) {
      const counts = slot?.counts;
      const [p50, p95, p99] = slot === null ? [null, null, null] : quantiles(slot.firstByte);
      const all = counts === undefined ? 0 : counts.completed + counts.rejected + counts.failed + counts.cancelled;
      columns.at.push((at * this.#stepMs) / 1000);
      columns.requests.push(all * perSecond);
      columns.errors.push((counts?.failed ?? 0) * perSecond);
      columns.cancelled.push((counts?.cancelled ?? 0) * perSecond);
      columns.chunks.push((counts?.chunks ?? 0) * perSecond);
      columns.tokens.push((counts?.completionTokens ?? 0) * perSecond);
      columns.inFlight.push(slot?.inFlight ?? 0);
      columns.firstByteP50.push(p50);
      columns.firstByteP95.push(p95);
      columns.firstByteP99.push(p99);
      at++;
    }
    return columns;
  }

  /** The `steps` slots before the present one, the oldest first; null where nothing was heard. */
  *#last(steps: number, nowMs: number): Generator<Slot | null> {
    const end = Math.floor(nowMs / this.#stepMs);
    for (let at = end - Math.min(steps, this.#slots.length - 1); at < end; at++) {
      const slot = this.#slots[at % this.#slots.length];
      yield slot?.at === at ? slot : null;
    }
  }
}

function emptyCounts(): Counts {
  return {
    completed: 0,
    rejected: 0,
    failed: 0,
    cancelled: 0,
    retries: 0,
    chunks: 0,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
  };
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
