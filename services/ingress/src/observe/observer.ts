import { errorCodes } from '@llm-gateway/protocol';
import { boundedLabel, type InfoLines, type Logger, type Parts, RecentLabel } from '@llm-gateway/runtime';
import type { DegradedReason } from '../decide/decider.ts';
import type { PickResult } from '../decide/stock.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { FirstContent } from '../exchange/first-content.ts';
import type { AttemptRecord, RequestResult, TargetKind } from '../exchange/request-record.ts';
import { FailureLog } from './failure-log.ts';
import { requestLine } from './request-line.ts';

const gapSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** Outcome of a call of a fallback endpoint. */
export type FallbackResult = 'answered' | 'limited' | 'failed' | 'broken' | 'cancelled';
/** Outcome of the offer of a 429 to the retry workers. */
const offerResults = [
  'accepted',
  'full',
  'draining',
  'generation',
  'hopeless',
  /** Accepted at an address that no retry worker announced. */
  'unknown_worker',
  'no_responders',
  'timeout',
  'unavailable',
] as const;
export type OfferResult = (typeof offerResults)[number];
/**
 * Why a request is not split: a prefill's KV cache is that of one prompt, for one answer. vLLM
 * answers a prefill of several prompts with the cache of the first, and makes of `n` and of each
 * prompt a request of its own that looks for it.
 */
export type WholeReason = 'prompts' | 'n' | 'best_of' | 'beam_search';
/** Of connections: all of them, and those of one address. */
const connectionLimits = ['connections', 'address'] as const;
type ConnectionLimit = (typeof connectionLimits)[number];
/** Outcome of a job for the retry workers; `refused`: no worker accepted it. */
export type QueueJobResult =
  | 'answered'
  | 'exhausted'
  | 'limited'
  | 'failed'
  | 'lost'
  | 'refused'
  | 'not_called'
  | 'broken'
  | 'cancelled';

/**
 * Everything the ingress reports about its requests: metrics, and one log line per finished request.
 * Never a prompt, an answer or a key.
 */
export class Observer {
  /** Receives each finished request while a console or command is watching. */
  watcher: ((exchange: Exchange, end: RequestResult, model: string) => void) | null = null;
  readonly #log: Logger;
  readonly #infoLines: InfoLines;
  readonly #models: RecentLabel;
  readonly #requests;
  readonly #duration;
  readonly #firstByte;
  readonly #firstContent;
  readonly #tokenGap;
  readonly #cancelled;
  readonly #broken;
  readonly #attempts;
  readonly #failures: FailureLog;
  readonly #cause: (cause: string) => string;
  readonly #defects;
  readonly #refusedConnections;
  readonly #retries;
  readonly #expectedBytes;
  readonly #cachedTokens;
  readonly #fallbacks;
  readonly #offers;
  readonly #queueJobs;
  readonly #budgetExhausted;
  readonly #prefillDuration;
  readonly #handoversMissing;
  readonly #notSplit;
  readonly #batchSize;
  readonly #decisionLatency;
  readonly #degradedDecisions;
  readonly #leases;
  readonly #picks;

  constructor({ log, infoLines, metrics }: Pick<Parts, 'log' | 'infoLines' | 'metrics'>) {
    this.#log = log;
    this.#infoLines = infoLines;
    this.#models = new RecentLabel((model) => metrics.forget('model', model));
    this.#requests = metrics.counter({
      name: 'requests_total',
      help: 'Finished requests',
      labels: ['model', 'route', 'status'],
    });
    this.#duration = metrics.histogram({
      name: 'request_duration_seconds',
      help: 'Time from the head of a request to the end of its answer',
      labels: ['route'],
    });
    this.#firstByte = metrics.histogram({
      name: 'time_to_first_byte_seconds',
      help: 'Time from the head of a request to the first byte of its answer',
      labels: ['route'],
    });
    this.#firstContent = metrics.histogram({
      name: 'time_to_first_token_seconds',
      help: 'Time from the head of a streaming request to the first content of its answer',
      labels: ['model'],
    });
    this.#tokenGap = metrics.histogram({
      name: 'inter_token_gap_seconds',
      help: 'Time between two chunks of a streamed answer after its first content: tokens, unless an engine sends several at once',
      labels: ['model'],
      buckets: gapSeconds,
    });
    this.#cancelled = metrics.counter({
      name: 'cancellations_total',
      help: 'Requests whose client left, by the phase they were in',
      labels: ['phase'],
    });
    this.#broken = metrics.counter({
      name: 'broken_answers_total',
      help: 'Answers cut after the client received part of them',
      labels: ['cause'],
    });
    this.#attempts = metrics.counter({
      name: 'attempts_total',
      help: 'Calls of instances, endpoints and retry workers, by outcome and cause of failure',
      labels: ['target_kind', 'outcome', 'cause'],
    });
    this.#cause = boundedLabel(maxCauses);
    this.#failures = new FailureLog(log);
    this.#defects = metrics.counter({
      name: 'internal_errors_total',
      help: 'Requests that failed with an unexpected error: a defect of the gateway',
    });
    this.#refusedConnections = metrics.counter({
      name: 'refused_connections_total',
      help: 'Client connections refused at a limit',
      labels: ['limit'],
    });
    // What is counted from its start is seen by a rate the first time.
    for (const limit of connectionLimits) this.#refusedConnections.labels({ limit });
    this.#expectedBytes = metrics.counter({
      name: 'prefix_expected_bytes_total',
      help: 'Prompt bytes expected in the cache of their instance, for answers that reported cached tokens',
    });
    this.#cachedTokens = metrics.counter({
      name: 'cached_tokens_total',
      help: 'Cached tokens reported for prompts with expected cached bytes',
    });
    this.#retries = metrics.counter({ name: 'retries_total', help: 'Internal retries, by cause', labels: ['cause'] });
    this.#fallbacks = metrics.counter({
      name: 'fallbacks_total',
      help: 'Calls of fallback endpoints',
      labels: ['endpoint', 'outcome'],
    });
    this.#offers = metrics.counter({
      name: 'retry_offers_total',
      help: 'Offers of a 429 to the retry workers',
      labels: ['result'],
    });
    for (const result of offerResults) this.#offers.labels({ result });
    this.#queueJobs = metrics.counter({
      name: 'retry_jobs_total',
      help: 'Jobs for the retry workers, by how they ended for this ingress',
      labels: ['outcome'],
    });
    this.#budgetExhausted = metrics.counter({
      name: 'retry_budget_exhausted_total',
      help: 'Internal retries and calls of the retry queue that the budget did not allow',
    });
    this.#prefillDuration = metrics.histogram({
      name: 'prefill_duration_seconds',
      help: 'Time from calling a prefill instance to the end of its answer',
      labels: ['outcome'],
    });
    this.#handoversMissing = metrics.counter({
      name: 'kv_transfer_params_missing_total',
      help: 'Answers of prefill instances without kv_transfer_params: the decode instance computes the prompt again',
    });
    this.#notSplit = metrics.counter({
      name: 'requests_not_split_total',
      help: 'Completions served by a decode instance only, by the reason why they cannot be split',
      labels: ['reason'],
    });
    this.#batchSize = metrics.histogram({
      name: 'decision_batch_size',
      help: 'Decisions requested in one message',
      buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    });
    this.#decisionLatency = metrics.histogram({
      name: 'decision_duration_seconds',
      help: 'Time from asking the router to its answer, per batch',
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1],
    });
    this.#degradedDecisions = metrics.counter({
      name: 'degraded_decisions_total',
      help: 'Decisions the ingress made itself because no router answered, by reason',
      labels: ['reason'],
    });
    const leases = metrics.counter({
      name: 'decision_leases_total',
      help: 'Requests to routers for picks of a pool in advance, by result',
      labels: ['result'],
    });
    this.#leases = {
      granted: leases.labels({ result: 'granted' }),
      empty: leases.labels({ result: 'empty' }),
      failed: leases.labels({ result: 'failed' }),
    };
    const picks = metrics.counter({
      name: 'leased_picks_total',
      help: 'Instances that routers chose in advance: taken by a request, expired, or skipped as unfit',
      labels: ['outcome'],
    });
    this.#picks = {
      taken: picks.labels({ outcome: 'taken' }),
      expired: picks.labels({ outcome: 'expired' }),
      skipped: picks.labels({ outcome: 'skipped' }),
    };
  }

  /** One chunk of an answer is about to be relayed. */
  chunk(exchange: Exchange, bytes: Uint8Array): void {
    if (!exchange.isStream) return;
    const now = performance.now();
    exchange.stream ??= {
      looking: new FirstContent(),
      firstContentAtMs: 0,
      lastChunkAtMs: 0,
      chunks: 0,
      maxGapMs: 0,
      gaps: null,
    };
    const { stream } = exchange;
    if (stream.gaps !== null) stream.gaps.observe((now - stream.lastChunkAtMs) / 1000);
    else if (stream.looking?.isIn(bytes)) this.#contentBegan(exchange, now);
    if (stream.chunks++ > 0) stream.maxGapMs = Math.max(stream.maxGapMs, now - stream.lastChunkAtMs);
    stream.lastChunkAtMs = now;
  }

  #contentBegan(exchange: Exchange, now: number): void {
    const { stream } = exchange;
    if (stream === null) return;
    stream.looking = null;
    // What looks like content in an answer that failed is a message.
    if (exchange.client.status >= 300) return;
    stream.firstContentAtMs = now;
    exchange.wasAccepted();
    const model = this.modelLabel(exchange);
    stream.gaps = this.#tokenGap.labels({ model });
    this.#firstContent.labels({ model }).observe((now - exchange.startedAtMs) / 1000, exchange.trace?.keptId);
  }

  /** One call of one upstream has ended. */
  attemptEnded(target: TargetKind, record: AttemptRecord): void {
    const { kind, cause } = record;
    this.#attempts.labels({ target_kind: target, outcome: kind, cause: this.#cause(cause) }).inc();
    this.#failures.ended(record);
  }

  connectionRefused(limit: ConnectionLimit): void {
    this.#refusedConnections.labels({ limit }).inc();
  }

  retry(cause: string): void {
    this.#retries.labels({ cause }).inc();
  }

  fallback(endpoint: string, outcome: FallbackResult): void {
    this.#fallbacks.labels({ endpoint, outcome }).inc();
  }

  offer(result: OfferResult): void {
    this.#offers.labels({ result }).inc();
  }

  job(outcome: QueueJobResult): void {
    this.#queueJobs.labels({ outcome }).inc();
  }

  budgetExhausted(): void {
    this.#budgetExhausted.inc();
  }

  prefill(outcome: 'succeeded' | 'failed', durationMs: number): void {
    this.#prefillDuration.labels({ outcome }).observe(durationMs / 1000);
  }

  /** A prefill's answer did not say where its cache lies. */
  handoverMissing(exchange: Exchange): void {
    this.#handoversMissing.inc();
    this.#log.warn(
      { requestId: exchange.id, prefill: exchange.prefill },
      'prefill answer has no kv_transfer_params; the decode instance computes the prompt again',
    );
  }

  notSplit(reason: WholeReason): void {
    this.#notSplit.labels({ reason }).inc();
  }

  batch(size: number, durationMs: number): void {
    this.#batchSize.observe(size);
    this.#decisionLatency.observe(durationMs / 1000);
  }

  degraded(reason: DegradedReason): void {
    this.#degradedDecisions.labels({ reason }).inc();
  }

  leaseEnded(result: 'granted' | 'empty' | 'failed'): void {
    this.#leases[result].inc();
  }

  picks(outcome: PickResult, count: number): void {
    this.#picks[outcome].inc(count);
  }

  /** Something that should never happen: a defect of the gateway itself. */
  defect(error: unknown, requestId: string): void {
    this.#defects.inc();
    this.#log.error({ err: error, requestId }, 'request failed inside the gateway; answered 500');
  }

  /** Every request ends here, once: one sample, one log line. */
  /** An answer said how much of its prompt was cached, of which some was expected. */
  cacheCompared(expectedBytes: number, cachedTokens: number): void {
    this.#expectedBytes.inc(expectedBytes);
    this.#cachedTokens.inc(cachedTokens);
  }

  finished(exchange: Exchange): void {
    if (exchange.isProbe) return;
    const { client, route } = exchange;
    const now = performance.now();
    const durationMs = now - exchange.startedAtMs;
    const firstByteMs = client.committed ? client.committedAtMs - exchange.startedAtMs : null;
    const kind = kindOf(exchange);
    const status = kind === 'cancelled' && !client.committed ? errorCodes.client_closed.status : client.status;

    this.#requests.labels({ model: this.modelLabel(exchange), route, status: String(status) }).inc();
    // Before the metrics: it is known only now whether the trace is kept, and so whether they may name it.
    const end = { status, kind, firstByteMs, durationMs };
    exchange.trace?.finished(exchange, end);
    const traceId = exchange.trace?.keptId;
    this.#duration.labels({ route }).observe(durationMs / 1000, traceId);
    if (firstByteMs !== null) this.#firstByte.labels({ route }).observe(firstByteMs / 1000, traceId);
    if (kind === 'cancelled') this.#cancelled.labels({ phase: exchange.phase }).inc();
    if (exchange.brokenBy !== undefined) this.#broken.labels({ cause: exchange.brokenBy }).inc();

    if (this.watcher !== null) {
      const model = exchange.accepted ? (exchange.model ?? '') : exchange.model === null ? '' : unknownModel;
      this.watcher(exchange, end, model);
    }
    if (!this.#infoLines.enabled) return;
    this.#infoLines.write('request', requestLine(exchange, end));
  }

  /**
   * A name that nothing ever took is the client's word alone, and must not crowd out those that are
   * served.
   */
  modelLabel(exchange: Exchange): string {
    const model = exchange.model ?? '';
    return exchange.accepted || model === '' || this.#models.has(model) ? this.#models.of(model) : unknownModel;
  }
}

const unknownModel = '_unknown';
/**
 * Causes are those of `upstream` and `status_` or `event_` with the statuses that count as failed.
 */
const maxCauses = 200;

function kindOf(exchange: Exchange): RequestResult['kind'] {
  if (exchange.brokenBy !== undefined) return 'failed';
  if (exchange.signal.aborted) return 'cancelled';
  return exchange.client.status >= 500 ? 'failed' : 'completed';
}
