import { latencyOfBucket, type RequestReport, type RequestTotals } from '@llm-gateway/protocol';

/** Counts of the past weigh half after this time. */
const halfLifeMs = 30_000;
const maxFlows = 300;
const buckets = 168;

/** What one model, or one way to a target, has at present: rates a second over about the last minute. */
export interface FlowRow {
  readonly name: string;
  readonly requestsPerSecond: number;
  readonly failedShare: number;
  readonly retriesPerSecond: number;
  readonly chunksPerSecond: number;
  readonly tokensPerSecond: number;
  readonly firstByteP50Ms: number | null;
  readonly firstByteP95Ms: number | null;
  /** Milliseconds since 1970. */
  readonly lastMs: number;
}

interface Flow {
  requests: number;
  failed: number;
  retries: number;
  chunks: number;
  tokens: number;
  readonly firstByte: Float64Array;
  /** When the counts were last made smaller. */
  decayedMs: number;
  lastMs: number;
}

/**
 * Rates by name, for names of a bounded number: when there are too many, the one that was silent
 * longest goes.
 */
export class Flows {
  readonly #flows = new Map<string, Flow>();
  readonly #nameOf: (totals: RequestTotals) => string;

  constructor(nameOf: (totals: RequestTotals) => string) {
    this.#nameOf = nameOf;
  }

  add({ totals }: RequestReport, nowMs: number): void {
    for (const each of totals) {
      const flow = this.#flow(this.#nameOf(each), nowMs);
      decay(flow, nowMs);
      flow.requests += each.completed + each.rejected + each.failed + each.cancelled;
      flow.failed += each.failed;
      flow.retries += each.retries;
      flow.chunks += each.chunks;
      flow.tokens += each.completionTokens ?? 0;
      flow.lastMs = nowMs;
      for (const [bucket, count] of each.firstByte) {
        if (bucket < buckets) flow.firstByte[bucket] = (flow.firstByte[bucket] ?? 0) + count;
      }
    }
  }

  #flow(name: string, nowMs: number): Flow {
    let flow = this.#flows.get(name);
    if (flow !== undefined) return flow;
    if (this.#flows.size >= maxFlows) {
      const [oldest] = [...this.#flows].sort(([, a], [, b]) => a.lastMs - b.lastMs);
      if (oldest !== undefined) this.#flows.delete(oldest[0]);
    }
    flow = {
      requests: 0,
      failed: 0,
      retries: 0,
      chunks: 0,
      tokens: 0,
      firstByte: new Float64Array(buckets),
      decayedMs: nowMs,
      lastMs: nowMs,
    };
    this.#flows.set(name, flow);
    return flow;
  }

  /** The busiest first. */
  rows(nowMs: number): FlowRow[] {
    const perSecond = Math.LN2 / (halfLifeMs / 1000);
    const rows = [...this.#flows].map(([name, flow]): FlowRow => {
      decay(flow, nowMs);
      return {
        name,
        requestsPerSecond: rounded(flow.requests * perSecond),
        failedShare: flow.requests < 0.01 ? 0 : rounded(flow.failed / flow.requests),
        retriesPerSecond: rounded(flow.retries * perSecond),
        chunksPerSecond: rounded(flow.chunks * perSecond),
        tokensPerSecond: rounded(flow.tokens * perSecond),
        firstByteP50Ms: quantile(flow.firstByte, 0.5),
        firstByteP95Ms: quantile(flow.firstByte, 0.95),
        lastMs: flow.lastMs,
      };
    });
    return rows.sort((a, b) => b.requestsPerSecond - a.requestsPerSecond || (a.name < b.name ? -1 : 1));
  }
}

function decay(flow: Flow, nowMs: number): void {
  const passedMs = nowMs - flow.decayedMs;
  if (passedMs < 250) return;
  const factor = 2 ** (-passedMs / halfLifeMs);
  flow.decayedMs = nowMs;
  flow.requests *= factor;
  flow.failed *= factor;
  flow.retries *= factor;
  flow.chunks *= factor;
  flow.tokens *= factor;
  for (let at = 0; at < buckets; at++) flow.firstByte[at] = (flow.firstByte[at] ?? 0) * factor;
}

function quantile(counts: Float64Array, share: number): number | null {
  let total = 0;
  for (const count of counts) total += count;
  if (total < 0.01) return null;
  let sum = 0;
  for (let bucket = 0; bucket < counts.length; bucket++) {
    sum += counts[bucket] ?? 0;
    if (sum >= share * total) return rounded(latencyOfBucket(bucket));
  }
  return null;
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
