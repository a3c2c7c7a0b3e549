import type { MirrorCopy, MirrorPrimary } from '@llm-gateway/protocol';
import type { Logger, Metrics } from '@llm-gateway/runtime';
import type { UnpairedReason } from './comparisons.ts';
import type { CopyResult } from './copy-call.ts';
import { Looks } from './looks.ts';

const bytesBuckets = [256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];
/** OpenAI's, and those that vLLM and SGLang add. */
const finishReasons: ReadonlySet<string> = new Set([
  'stop',
  'length',
  'tool_calls',
  'function_call',
  'content_filter',
  'abort',
  'error',
]);

/**
 * The metrics of a sender's copies, and log lines if the config asks for them.
 * Never a body, a header or a query.
 */
export class Observer {
  /** The same for people who look. */
  readonly looks = new Looks();
  readonly #log: Pick<Logger, 'info'>;
  readonly #compareLogPercent: number;
  readonly #received;
  readonly #copies;
  readonly #duration;
  readonly #statuses;
  readonly #finishes;
  readonly #unpaired;
  readonly #sides;

  constructor(log: Pick<Logger, 'info'>, metrics: Metrics, options: { compareLogPercent: number }) {
    this.#log = log;
    this.#compareLogPercent = options.compareLogPercent;
    this.#received = metrics.counter({
      name: 'mirror_sender_received_total',
      help: 'Mirror copies received by this sender',
    });
    this.#copies = metrics.counter({
      name: 'mirror_sender_copies_total',
      help: 'Mirror copies received by this sender, by outcome',
      labels: ['outcome', 'reason'],
    });
    this.#duration = metrics.histogram({
      name: 'mirror_sender_duration_seconds',
      help: 'Time from sending a mirror copy to the end of its answer',
      labels: ['outcome'],
    });
    this.#statuses = metrics.counter({
      name: 'mirror_compare_statuses_total',
      help: "Compared copies, by the status class of the client's answer and of the copy's",
      labels: ['primary', 'shadow'],
    });
    this.#finishes = metrics.counter({
      name: 'mirror_compare_finish_reasons_total',
      help: "Compared copies, by the finish reason of the client's answer and of the copy's",
      labels: ['primary', 'shadow'],
    });
    this.#unpaired = metrics.counter({
      name: 'mirror_compare_unpaired_total',
      help: 'Copies to compare whose primary answer was not reported',
      labels: ['reason'],
    });
    const firstByte = metrics.histogram({
      name: 'mirror_compare_time_to_first_byte_seconds',
      help: 'Time to first byte of compared answers, of requests whose copy was answered',
      labels: ['side'],
    });
    const duration = metrics.histogram({
      name: 'mirror_compare_duration_seconds',
      help: 'Duration of compared answers, of requests whose copy was answered',
      labels: ['side'],
    });
    const bytes = metrics.histogram({
      name: 'mirror_compare_response_bytes',
      help: 'Size of compared answers, of requests whose copy was answered',
      labels: ['side'],
      buckets: bytesBuckets,
    });
    const sideOf = (side: 'primary' | 'shadow') => ({
      firstByte: firstByte.labels({ side }),
      duration: duration.labels({ side }),
      bytes: bytes.labels({ side }),
    });
    this.#sides = { primary: sideOf('primary'), shadow: sideOf('shadow') };
  }

  received(): void {
    this.#received.inc();
  }

  ended(copy: MirrorCopy, end: CopyResult): void {
    const { kind: outcome, cause: reason } = end;
    this.#copies.labels({ outcome, reason }).inc();
    this.looks.ended(outcome, reason);
    if (outcome !== 'dropped') this.#duration.labels({ outcome }).observe(end.durationMs / 1000);
    if (!copy.log) return;
    this.#log.info(
      {
        requestId: copy.requestId,
        url: copy.url.split('?', 1)[0],
        outcome,
        reason: reason === '' ? undefined : reason,
        status: end.status,
        responseBytes: end.bytes,
        firstByteMs: rounded(end.timeToFirstByteMs),
        durationMs: rounded(end.durationMs),
      },
      'mirror copy',
    );
  }

  compared(primary: MirrorPrimary, shadow: CopyResult): void {
    const classes = { primary: statusClass(primary.status), shadow: statusClass(shadow.status) };
    this.#statuses.labels(classes).inc();
    this.looks.compared(classes, shadow.answered ? { primary, shadow } : null);
    this.#finishes.labels({ primary: finishLabel(primary), shadow: finishLabel(shadow) }).inc();
    // A copy that could not connect would count as a fast answer. Neither side counts then, so that
    // both tell of the same requests.
    if (shadow.answered) {
      this.#observe('primary', primary);
      this.#observe('shadow', shadow);
    }
    if (Math.random() * 100 >= this.#compareLogPercent) return;
    const { requestId } = primary;
    this.#log.info(
      { requestId, primary: shown(primary), shadow: shown(shadow), reason: shadow.cause },
      'mirror comparison',
    );
  }

  #observe(side: 'primary' | 'shadow', { timeToFirstByteMs, durationMs, bytes }: Answer): void {
    const histograms = this.#sides[side];
    if (timeToFirstByteMs !== null) histograms.firstByte.observe(timeToFirstByteMs / 1000);
    histograms.duration.observe(durationMs / 1000);
    histograms.bytes.observe(bytes);
  }

  unpaired(reason: UnpairedReason): void {
    this.#unpaired.labels({ reason }).inc();
  }
}

type Answer = Pick<CopyResult, 'status' | 'timeToFirstByteMs' | 'durationMs' | 'bytes' | 'finishReason'>;

function shown({ status, timeToFirstByteMs, durationMs, bytes, finishReason }: Answer): object {
  return { status, firstByteMs: rounded(timeToFirstByteMs), durationMs: rounded(durationMs), bytes, finishReason };
}

function statusClass(status: number | null): string {
  return status === null ? 'none' : `${Math.floor(status / 100)}xx`;
}

function finishLabel({ finishReason }: Answer): string {
  if (finishReason === null) return 'none';
  return finishReasons.has(finishReason) ? finishReason : 'other';
}

function rounded(milliseconds: number | null): number | null {
  return milliseconds === null ? null : Math.round(milliseconds * 100) / 100;
}
