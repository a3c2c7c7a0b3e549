import { type Bus, Outbox } from '@llm-gateway/bus';
import { maxUsageRecords, type UsageQuality, type UsageRecord, usageRecord } from '@llm-gateway/protocol';
import { boundedLabel, type Metrics } from '@llm-gateway/runtime';
import type { TokenCounts, UsageReader } from './usage-reader.ts';

/** The tokens of a request whose answer had a status of 2xx. */
export interface Usage {
  readonly quality: UsageQuality;
  /** Null when they are absent. */
  readonly counts: TokenCounts | null;
}

/** What of an exchange says how well its tokens are known. */
interface Answered {
  /** Null before an answer of status 2xx has begun. */
  readonly usage: UsageReader | null;
  readonly brokenBy: string | undefined;
  readonly signal: { readonly aborted: boolean };
}

/** What of an exchange is recorded. */
interface Recorded extends Answered {
  readonly id: string;
  readonly from: { readonly name: string } | null;
  readonly model: string | null;
  readonly request: { readonly path: string };
  readonly client: { readonly status: number };
  readonly route: UsageRecord['route'];
  readonly endpoint: string;
  readonly isStream: boolean;
  readonly startedAtMs: number;
}

interface UsageBookParts {
  readonly ingress: string;
  readonly bus: Bus;
  readonly metrics: Metrics;
  /** Whether records are published. */
  readonly records: boolean;
}

/**
 * Counts the tokens of all requests once, whatever it took to answer them, and publishes a record
 * of each.
 */
export class UsageBook implements Disposable {
  readonly #tokens;
  readonly #clientTokens;
  readonly #qualities;
  readonly #recorded;
  readonly #client = boundedLabel();
  #sequence = 0;
  /** Null: no records are published. */
  readonly #records: Outbox<UsageRecord> | null;

  constructor({ ingress, bus, metrics, records }: UsageBookParts) {
    this.#tokens = metrics.counter({
      name: 'tokens_total',
      help: 'Tokens of requests as engines counted them, by kind: prompt, cached, completion, reasoning',
      labels: ['model', 'kind'],
    });
    this.#clientTokens = metrics.counter({
      name: 'client_tokens_total',
      help: 'Tokens of requests by client name',
      labels: ['client', 'kind'],
    });
    this.#qualities = metrics.counter({
      name: 'usage_total',
      help: 'Answered requests by quality of their token counts: exact, partial (a cut stream) or absent',
      labels: ['quality'],
    });
    this.#recorded = metrics.counter({
      name: 'usage_records_total',
      help: 'Usage records, by whether the bus accepted them; dropped ones are lost',
      labels: ['result'],
    });
    this.#records = records ? this.#outbox(bus, ingress) : null;
  }

  /** A request is over. @param model its label */
  finished(exchange: Recorded, model: string): void {
    const usage = usageOf(exchange);
    if (usage === null) return;
    this.#qualities.labels({ quality: usage.quality }).inc();
    if (usage.counts !== null) {
      const client = exchange.from === null ? null : this.#client(exchange.from.name);
      for (const kind of ['prompt', 'cached', 'completion', 'reasoning'] as const) {
        const count = usage.counts[kind];
        if (count === 0) continue;
        this.#tokens.labels({ model, kind }).inc(count);
        if (client !== null) this.#clientTokens.labels({ client, kind }).inc(count);
      }
    }
    this.#records?.add(recordOf(exchange, usage));
  }

  [Symbol.dispose](): void {
    this.#records?.[Symbol.dispose]();
  }

  #outbox(bus: Bus, ingress: string): Outbox<UsageRecord> {
    return new Outbox({
      bus,
      delayMs: gatherMs,
      maxWaiting: maxUsageRecords,
      whenFull: 'publish',
      maxEntries: maxUsageRecords,
      envelopeBytes,
      bytesOf: () => recordBytes,
      publish: (records) => {
        const sequence = this.#sequence;
        this.#sequence += records.length;
        const result = bus.publish(usageRecord, { ingress, sequence, records }) ? 'published' : 'dropped';
        this.#recorded.labels({ result }).inc(records.length);
      },
    });
  }
}

/** How long a record waits for others. */
const gatherMs = 1000;
const envelopeBytes = 1024;
/** Maximum size of a record: a model name may have 1,024 characters of up to six bytes each. */
const recordBytes = 8192;
const maxPathLength = 200;

/** Null for a request without an answer of status 2xx: it took no tokens that anybody knows of. */
export function usageOf(exchange: Answered): Usage | null {
  const { usage } = exchange;
  if (usage === null) return null;
  const { counts } = usage;
  if (counts === null) return { quality: 'absent', counts };
  const isWhole = exchange.brokenBy === undefined && !exchange.signal.aborted;
  return { quality: isWhole ? 'exact' : 'partial', counts };
}

function recordOf(exchange: Recorded, { quality, counts }: Usage): UsageRecord {
  const durationMs = performance.now() - exchange.startedAtMs;
  return {
    requestId: exchange.id,
    client: exchange.from?.name ?? null,
    model: exchange.model,
    path: exchange.request.path.slice(0, maxPathLength),
    route: exchange.route,
    endpoint: exchange.endpoint,
    stream: exchange.isStream,
    status: exchange.client.status,
    startedAtMs: Math.round(Date.now() - durationMs),
    durationMs: Math.round(durationMs),
    quality,
    promptTokens: counts?.prompt ?? 0,
    cachedTokens: counts?.cached ?? 0,
    completionTokens: counts?.completion ?? 0,
    reasoningTokens: counts?.reasoning ?? 0,
  };
}
