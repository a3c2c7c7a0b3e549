import type { Metrics, WorkQueue } from '@llm-gateway/runtime';
import type { RelayResult } from '@llm-gateway/upstream';

/**
 * How a job ended, as metrics and the log name it. `expired`: the ingress did not come with the
 * request.
 */
export type JobLabel =
  | 'answered'
  | 'broken'
  | 'exhausted'
  | 'limited'
  | 'failed'
  | 'handed_back'
  | 'cancelled'
  | 'expired';
export type OfferResult = 'accepted' | 'full' | 'draining' | 'generation' | 'hopeless';

/** What is logged about a finished job. */
export interface JobStory {
  readonly requestId: string;
  /** Where the request has a trace. */
  readonly trace_id?: string;
  /** Host of the endpoint. */
  readonly endpoint: string;
  readonly outcome: JobLabel;
  /** Made by this worker. */
  readonly calls: number;
  readonly heldMs: number;
}

export interface Log {
  info(fields: object, message: string): void;
  warn(message: string): void;
  error(fields: object, message: string): void;
}

/** The metrics of the worker's jobs, and one log line for each. */
export class Observer {
  readonly #log: Log;
  readonly #offers;
  readonly #jobs;
  readonly #calls;
  readonly #waits;

  constructor(log: Log, metrics: Metrics) {
    this.#log = log;
    this.#offers = metrics.counter({
      name: 'retry_queue_offers_total',
      help: 'Offers of jobs to this worker, by its answer',
      labels: ['result'],
    });
    this.#jobs = metrics.counter({
      name: 'retry_queue_outcomes_total',
      help: 'Jobs of this worker, by outcome',
      labels: ['outcome'],
    });
    this.#calls = metrics.counter({
      name: 'retry_queue_calls_total',
      help: 'Calls of endpoints by this worker',
      labels: ['endpoint', 'outcome'],
    });
    this.#waits = metrics.histogram({
      name: 'retry_queue_wait_seconds',
      help: 'Time from a 429 to the next call of its job',
    });
  }

  offer(result: OfferResult): void {
    this.#offers.labels({ result }).inc();
  }

  waited(durationMs: number): void {
    this.#waits.observe(durationMs / 1000);
  }

  called(endpoint: string, end: RelayResult): void {
    const limited = end.kind === 'rejected' && end.answer.status === 429;
    this.#calls.labels({ endpoint, outcome: limited ? 'limited' : callOutcomes[end.kind] }).inc();
  }

  ended(story: JobStory): void {
    this.#jobs.labels({ outcome: story.outcome }).inc();
    this.#log.info({ ...story, heldMs: Math.round(story.heldMs) }, 'job');
  }

  /** Something that should never happen: a defect of the worker itself. */
  defect(error: unknown, requestId: string): void {
    this.#log.error({ err: error, requestId }, 'retry job failed inside the worker');
  }
}

const callOutcomes = {
  answered: 'answered',
  rejected: 'failed',
  failed: 'failed',
  broken: 'broken',
  cancelled: 'cancelled',
} as const satisfies Record<RelayResult['kind'], string>;

export function declareGauges(metrics: Metrics, queue: WorkQueue, oldestMs: () => number): void {
  metrics.gauge({
    name: 'retry_queue_depth',
    help: 'Jobs that wait in backoff or for their turn',
    collect: () => queue.waiting,
  });
  metrics.gauge({
    name: 'retry_queue_calls_in_flight',
    help: 'Jobs that call their endpoint',
    collect: () => queue.working,
  });
  metrics.gauge({
    name: 'retry_queue_oldest_age_seconds',
    help: 'Age of the oldest job; 0 without jobs',
    collect: () => oldestMs() / 1000,
  });
  metrics.gauge({
    name: 'retry_queue_held_bytes',
    help: 'Bytes of request bodies that jobs hold',
    collect: () => queue.heldBytes,
  });
}
