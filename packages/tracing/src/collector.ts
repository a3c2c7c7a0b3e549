import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { OTLPExporterError } from '@opentelemetry/otlp-exporter-base';
import { convertLegacyHttpOptions, createOtlpHttpExportDelegate } from '@opentelemetry/otlp-exporter-base/node-http';
import { type ISerializer, ProtobufTraceSerializer, TraceExporterMetricsHelper } from '@opentelemetry/otlp-transformer';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import type { CollectorSettings } from './environment.ts';

/** Why the collector took none of a batch. */
export const sendFailures = [
  /** It did not answer, or its answer did not end, in time. */
  'timeout',
  /** The connection could not be made, or broke. */
  'unreachable',
  /** It answered 429, 502, 503 or 504 until the time was over. */
  'busy',
  /** It answered with another status that is no 2xx. */
  'status',
  /**
   * Its answer was a success in form, but none of OTLP: most likely another server stands there.
   */
  'not_otlp',
  /** Its answer is longer than 4 MB. */
  'answer_too_long',
  'other',
] as const;
type SendFailure = (typeof sendFailures)[number];

/** What became of a batch. */
export interface Delivery {
  /** Spans of it that the collector did not want. */
  readonly rejected: number;
  /** `detail`: a status, a code, or a sentence of the SDK; nothing that the collector said. */
  readonly failure?: { readonly cause: SendFailure; readonly detail?: string | number };
}

type Trace = Parameters<typeof ProtobufTraceSerializer.serializeRequest>[0];

/** The exporter stops by itself after its timeout, unless an answer goes on for ever. */
const graceMs = 1000;

/**
 * Posts batches to a collector: the official exporter, put together from its own parts, because
 * what makes it as a whole keeps to itself what the collector answered. It reads headers and
 * compression from the environment.
 */
export class Collector {
  readonly #delegate: ReturnType<typeof createOtlpHttpExportDelegate<Trace, object>>;
  readonly #agent: HttpAgent;
  readonly #timeoutMs: number;
  /** Of the batch whose result comes next, in the same turn. */
  #answer: Delivery | undefined;

  constructor(url: string, { timeoutMs, tls }: Pick<CollectorSettings, 'timeoutMs' | 'tls'>) {
    this.#timeoutMs = timeoutMs;
    this.#agent = url.startsWith('https:')
      ? new HttpsAgent({ keepAlive: true, ...tls })
      : new HttpAgent({ keepAlive: true });
    const serializer: ISerializer<Trace, object> = {
      serializeRequest: (spans) => ProtobufTraceSerializer.serializeRequest(spans),
      deserializeResponse: (data) => {
        this.#answer = deliveryOf(data);
        return {};
      },
    };
    this.#delegate = createOtlpHttpExportDelegate(
      convertLegacyHttpOptions(
        { url, timeoutMillis: timeoutMs, httpAgentOptions: async () => this.#agent },
        'TRACES',
        'v1/traces',
        {
          'Content-Type': 'application/x-protobuf',
        },
      ),
      serializer,
      'otlp_http_span_exporter',
      TraceExporterMetricsHelper,
      undefined,
    );
  }

  /** Calls `done` once, within the timeout and a second. */
  send(batch: ReadableSpan[], done: (delivery: Delivery) => void): void {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      // Requests cannot be ended one by one; the next one has a connection of its own.
      this.#agent.destroy();
    }, this.#timeoutMs + graceMs).unref();
    this.#delegate.export(batch, ({ code, error }) => {
      clearTimeout(timer);
      const answer = this.#answer;
      this.#answer = undefined;
      if (late) done({ rejected: 0, failure: { cause: 'timeout' } });
      else if (code !== 0) done({ rejected: 0, failure: failureOf(error) });
      // An answer that broke off counts as a success there.
      else if (answer === undefined)
        done({ rejected: 0, failure: { cause: 'unreachable', detail: 'answer broke off' } });
      else done({ ...answer, rejected: Math.min(answer.rejected, batch.length) });
    });
  }

  forceFlush(): Promise<void> {
    return this.#delegate.forceFlush();
  }

  async shutdown(): Promise<void> {
    await this.#delegate.shutdown();
    this.#agent.destroy();
  }
}

function deliveryOf(data: Uint8Array): Delivery {
  try {
    const { partialSuccess } = ProtobufTraceSerializer.deserializeResponse(data);
    const rejected = Number(partialSuccess?.rejectedSpans ?? 0);
    return { rejected: Number.isSafeInteger(rejected) && rejected > 0 ? rejected : 0 };
  } catch {
    return { rejected: 0, failure: { cause: 'not_otlp' } };
  }
}

function failureOf(error: Error | undefined): NonNullable<Delivery['failure']> {
  if (error instanceof OTLPExporterError) {
    return error.code === undefined ? { cause: 'busy' } : { cause: 'status', detail: error.code };
  }
  if (error === undefined) return { cause: 'other' };
  if ('code' in error) return { cause: 'unreachable', detail: String(error.code) };
  if (error.message === 'Request timed out') return { cause: 'timeout' };
  if (error.message.includes('exceeded size limit')) return { cause: 'answer_too_long' };
  return { cause: 'other', detail: error.message };
}
