import { errorCodes } from '@llm-gateway/protocol';
import { boundedLabel, type Logger, type Metrics } from '@llm-gateway/runtime';
import type { DegradedReason } from './decider.ts';
import type { Exchange } from './exchange.ts';
import type { Refused } from './refusal.ts';

const gapSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** What became of a call of a fallback endpoint. */
export type FallbackResult = 'answered' | 'limited' | 'failed' | 'broken' | 'cancelled';
/** What became of the offer of a 429 to the retry workers. */
export type OfferResult =
  | 'accepted'
  | 'full'
  | 'draining'
  | 'generation'
  | 'hopeless'
  /** Accepted at an address that no retry worker announced. */
  | 'unknown_worker'
  | 'no_responders'
  | 'timeout'
  | 'unavailable';
/** What became of a job for the retry workers; `refused`: none of them had it. */
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

/** Everything the ingress tells about its requests: metrics, and one log line per finished request. Never a prompt, an answer or a key. */
export class Observer {
  readonly #log: Logger;
  readonly #model: (model: string) => string;
  readonly #requests;
  readonly #duration;
  readonly #firstByte;
  readonly #chunkGap;
  readonly #cancelled;
  readonly #broken;
  readonly #retries;
  readonly #fallbacks;
  readonly #offers;
  readonly #queueJobs;
  readonly #budgetExhausted;
  readonly #prefillDuration;
  readonly #handoversMissing;
  readonly #batchSize;
  readonly #decisionLatency;
  readonly #degradedDecisions;

  constructor(log: Logger, metrics: Metrics) {
    this.#log = log;
    this.#model = boundedLabel();
    this.#requests = metrics.counter({
      name: 'requests_total',
      help: 'Finished requests',
      labels: ['model', 'route', 'status'],
    });
    this.#duration = metrics.histogram({
      name: 'request_duration_seconds',
      help: 'From the head of a request to the end of its answer',
      labels: ['route'],
    });
    this.#firstByte = metrics.histogram({
      name: 'time_to_first_byte_seconds',
      help: 'From the head of a request to the first byte of its answer',
      labels: ['route'],
    });
    this.#chunkGap = metrics.histogram({
      name: 'inter_chunk_gap_seconds',
      help: 'Between two chunks of a streamed answer',
      buckets: gapSeconds,
    });
    this.#cancelled = metrics.counter({
      name: 'cancellations_total',
      help: 'Requests whose client left, by the phase they were in',
      labels: ['phase'],
    });
    this.#broken = metrics.counter({
      name: 'broken_answers_total',
      help: 'Answers cut after the client had part of them',
      labels: ['cause'],
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
    this.#queueJobs = metrics.counter({
      name: 'retry_jobs_total',
      help: 'Jobs for the retry workers, by what this ingress saw of their end',
      labels: ['outcome'],
    });
    this.#budgetExhausted = metrics.counter({
      name: 'retry_budget_exhausted_total',
      help: 'Internal retries and calls of the retry queue that the budget did not allow',
    });
    this.#prefillDuration = metrics.histogram({
      name: 'prefill_duration_seconds',
      help: 'From calling a prefill instance to the end of its answer',
      labels: ['outcome'],
    });
    this.#handoversMissing = metrics.counter({
      name: 'kv_transfer_params_missing_total',
      help: 'Answers of prefill instances without kv_transfer_params: the decode instance computes the prompt again',
    });
    this.#batchSize = metrics.histogram({
      name: 'decision_batch_size',
      help: 'Decisions asked for in one message',
      buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    });
    this.#decisionLatency = metrics.histogram({
      name: 'decision_duration_seconds',
      help: 'From asking the router to its answer, per batch',
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1],
    });
    this.#degradedDecisions = metrics.counter({
      name: 'degraded_decisions_total',
      help: 'Decisions the ingress made itself because no router answered, by reason',
      labels: ['reason'],
    });
  }

  /** One chunk of an answer is about to be relayed. */
  chunk(exchange: Exchange): void {
    if (!exchange.stream) return;
    const now = performance.now();
    if (exchange.lastChunkAtMs > 0) this.#chunkGap.observe((now - exchange.lastChunkAtMs) / 1000);
    exchange.lastChunkAtMs = now;
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
      "a prefill's answer has no kv_transfer_params: the decode instance computes the prompt again",
    );
  }

  batch(size: number, durationMs: number): void {
    this.#batchSize.observe(size);
    this.#decisionLatency.observe(durationMs / 1000);
  }

  degraded(reason: DegradedReason): void {
    this.#degradedDecisions.labels({ reason }).inc();
  }

  /** Something that should never happen: a defect of the gateway itself. */
  defect(error: unknown, requestId: string): void {
    this.#log.error({ err: error, requestId }, 'a request failed inside the gateway');
  }

  /** A request that was answered without being served. */
  refused({ id, method, path, code }: Refused): void {
    const { status } = errorCodes[code];
    this.#requests.labels({ model: this.#model(''), route: 'none', status: String(status) }).inc();
    const outcome = status >= 500 ? 'failed' : 'completed';
    this.#log.info({ requestId: id, method, path, status, outcome, code }, 'request');
  }

  listedModels(id: string): void {
    this.#requests.labels({ model: this.#model(''), route: 'none', status: '200' }).inc();
    const line = { requestId: id, method: 'GET', path: '/v1/models', status: 200, outcome: 'completed' };
    this.#log.info(line, 'request');
  }

  finished(exchange: Exchange): void {
    const { client, route } = exchange;
    const now = performance.now();
    const durationMs = now - exchange.startedAtMs;
    const firstByteMs = client.committed ? client.committedAtMs - exchange.startedAtMs : null;
    const outcome = outcomeOf(exchange);
    const status = outcome === 'cancelled' && !client.committed ? errorCodes.client_closed.status : client.status;

    this.#requests.labels({ model: this.#model(exchange.model ?? ''), route, status: String(status) }).inc();
    this.#duration.labels({ route }).observe(durationMs / 1000);
    if (firstByteMs !== null) this.#firstByte.labels({ route }).observe(firstByteMs / 1000);
    if (outcome === 'cancelled')
      this.#cancelled.labels({ phase: client.committed ? 'streaming' : exchange.phase }).inc();
    if (exchange.brokenBy !== undefined) this.#broken.labels({ cause: exchange.brokenBy }).inc();

    this.#log.info(
      {
        requestId: exchange.id,
        method: exchange.request.method,
        path: exchange.path,
        model: exchange.model,
        stream: exchange.stream,
        route,
        endpoint: exchange.endpoint,
        prefill: exchange.prefill,
        attempts: exchange.attempts,
        status,
        outcome,
        brokenBy: exchange.brokenBy,
        requestBytes: exchange.body.length,
        responseBytes: client.bodyBytes,
        firstByteMs: rounded(firstByteMs),
        durationMs: rounded(durationMs),
      },
      'request',
    );
  }
}

function outcomeOf(exchange: Exchange): 'completed' | 'failed' | 'cancelled' {
  if (exchange.brokenBy !== undefined) return 'failed';
  if (exchange.signal.aborted) return 'cancelled';
  return exchange.client.status >= 500 ? 'failed' : 'completed';
}

function rounded(milliseconds: number | null): number | null {
  return milliseconds === null ? null : Math.round(milliseconds * 100) / 100;
}
