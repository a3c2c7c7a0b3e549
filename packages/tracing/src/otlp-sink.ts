import { randomUUID } from 'node:crypto';
import {
  type AttributeValue,
  trace as api,
  type HrTime,
  type Link,
  SpanKind as OtelKind,
  type SpanContext as OtelSpanContext,
  ROOT_CONTEXT,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  type IdGenerator,
  type ReadableSpan,
  SamplingDecision,
  type SpanExporter,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import manifest from '../package.json' with { type: 'json' };
import type { SpanContext } from './context.ts';
import { type TracingSettings, tracesUrl } from './options.ts';
import type { Span, SpanKind, Trace } from './trace.ts';
import type { TraceSink, TracingHost } from './trace-sink.ts';

/** Encoding a batch holds the event loop up: some 10 µs a span. */
const maxBatch = 256;
/** How long a process that ends waits for a collector. */
const flushMs = 2000;
const maxAttributeLength = 1000;
const maxAttributes = 64;
/** A clock that ran away from that of the machine by so much is set again. */
const maxDriftMs = 20;
const warnEveryMs = 60_000;

const kinds: Readonly<Record<SpanKind, OtelKind>> = {
  internal: OtelKind.INTERNAL,
  server: OtelKind.SERVER,
  client: OtelKind.CLIENT,
  consumer: OtelKind.CONSUMER,
};

type ExportResult = Parameters<Parameters<SpanExporter['export']>[1]>[0];

/**
 * Gives kept traces to the official SDK, which sends them in batches. At most `traceQueueSize` spans are held, those on their way
 * among them: a collector that hangs costs that much memory, and the spans that come meanwhile.
 */
export class OtlpSink implements TraceSink, AsyncDisposable {
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  readonly #ids = new GivenIds();
  readonly #ratio: TraceIdRatioBasedSampler;
  readonly #clock = new WallClock();

  constructor(settings: TracingSettings, service: string, host: TracingHost) {
    this.#ratio = new TraceIdRatioBasedSampler(settings.traceRatio);
    const exporter = new OTLPTraceExporter({ url: tracesUrl(settings.otlpEndpoint) });
    this.#provider = new TracerProvider({
      idGenerator: this.#ids,
      sampler: new AlwaysOnSampler(),
      spanLimits: { attributeCountLimit: maxAttributes, attributeValueLengthLimit: maxAttributeLength },
      resource: resourceFromAttributes({
        'service.namespace': settings.namespace === '' ? 'llm-gateway' : settings.namespace,
        'service.name': `llm-gateway-${service}`,
        'service.version': manifest.version,
        'service.instance.id': randomUUID(),
      }).merge(detectResources({ detectors: [envDetector] })),
      spanProcessors: [new BoundedProcessor(exporter, settings, host)],
    });
    this.#tracer = this.#provider.getTracer('llm-gateway', manifest.version);
  }

  drawn(traceId: string): boolean {
    return this.#ratio.shouldSample(ROOT_CONTEXT, traceId).decision === SamplingDecision.RECORD_AND_SAMPLED;
  }

  export(trace: Trace): void {
    this.#clock.check();
    for (const span of trace.spans) this.#exportSpan(span, trace);
  }

  #exportSpan(span: Span, trace: Trace): void {
    const { root } = trace;
    this.#ids.set(trace.id, span.id);
    const parent =
      span === root ? trace.parent : { traceId: trace.id, spanId: (span.parent ?? root).id, sampled: true };
    const context =
      parent === null ? ROOT_CONTEXT : api.setSpanContext(ROOT_CONTEXT, otelContext(parent, span === root));
    const links: Link[] = span === root && trace.link !== null ? [{ context: otelContext(trace.link, true) }] : [];
    const made = this.#tracer.startSpan(
      span.name,
      {
        kind: kinds[span.kind],
        startTime: this.#clock.at(span.startedAtMs),
        attributes: known(span.attributes),
        links,
      },
      context,
    );
    for (const { name, atMs } of span.events) made.addEvent(name, this.#clock.at(atMs));
    if (span.error !== undefined) made.setStatus({ code: SpanStatusCode.ERROR, message: span.error });
    made.end(this.#clock.at(span.endedAtMs));
  }

  /** What is held goes out, if the collector takes it within two seconds. */
  async [Symbol.asyncDispose](): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, flushMs);
    });
    await Promise.race([this.#provider.shutdown().catch(() => {}), late]);
    clearTimeout(timer);
  }
}

function known(attributes: Readonly<Record<string, AttributeValue | undefined>>): Record<string, AttributeValue> {
  const defined: Record<string, AttributeValue> = {};
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) defined[name] = value;
  return defined;
}

function otelContext({ traceId, spanId, sampled }: SpanContext, isRemote: boolean): OtelSpanContext {
  return { traceId, spanId, traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE, isRemote };
}

/** Spans have their ids before the SDK makes them: others were told. */
class GivenIds implements IdGenerator {
  #traceId = '';
  #spanId = '';

  set(traceId: string, spanId: string): void {
    this.#traceId = traceId;
    this.#spanId = spanId;
  }

  generateTraceId(): string {
    return this.#traceId;
  }

  generateSpanId(): string {
    return this.#spanId;
  }
}

/** Monotonic milliseconds as time of day. All of a trace is converted alike, so that no step of it begins before its parent. */
class WallClock {
  #originMs = performance.timeOrigin;

  check(): void {
    const originMs = Date.now() - performance.now();
    if (Math.abs(originMs - this.#originMs) > maxDriftMs) this.#originMs = originMs;
  }

  at(monotonicMs: number): HrTime {
    const ms = this.#originMs + monotonicMs;
    const seconds = Math.floor(ms / 1000);
    return [seconds, Math.round((ms - seconds * 1000) * 1e6)];
  }
}

/** The SDK's batches behind a limit that counts what it drops. */
class BoundedProcessor implements SpanProcessor {
  readonly #inner: BatchSpanProcessor;
  readonly #maxHeld: number;
  readonly #sent;
  readonly #dropped;
  #held = 0;

  constructor(
    exporter: SpanExporter,
    { traceQueueSize, traceIntervalMs }: TracingSettings,
    { metrics, log }: TracingHost,
  ) {
    this.#maxHeld = traceQueueSize;
    const spans = metrics.counter({
      name: 'trace_spans_total',
      help: 'Spans of kept traces: sent to the collector, dropped because too many were held, or failed to be sent',
      labels: ['outcome'],
    });
    this.#sent = spans.labels({ outcome: 'sent' });
    this.#dropped = spans.labels({ outcome: 'dropped' });
    const failed = spans.labels({ outcome: 'failed' });
    metrics.gauge({ name: 'trace_spans_held', help: 'Spans held for the collector', collect: () => this.#held });
    let warnAtMs = Number.NEGATIVE_INFINITY;
    const counted: SpanExporter = {
      export: (batch: ReadableSpan[], done: (result: ExportResult) => void) =>
        exporter.export(batch, (result) => {
          this.#held -= batch.length;
          if (result.code === 0) this.#sent.inc(batch.length);
          else failed.inc(batch.length);
          const now = performance.now();
          if (result.code !== 0 && now >= warnAtMs) {
            warnAtMs = now + warnEveryMs;
            log.warn(
              { cause: causeOf(result.error) },
              'the OpenTelemetry collector took no spans; requests do not wait',
            );
          }
          done(result);
        }),
      shutdown: () => exporter.shutdown(),
      forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
    };
    this.#inner = new BatchSpanProcessor({
      exporter: counted,
      maxQueueSize: traceQueueSize,
      maxExportBatchSize: Math.min(maxBatch, traceQueueSize),
      scheduledDelayMillis: traceIntervalMs,
    });
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if (this.#held >= this.#maxHeld) {
      this.#dropped.inc();
      return;
    }
    this.#held++;
    this.#inner.onEnd(span);
  }

  forceFlush(): Promise<void> {
    return this.#inner.forceFlush();
  }

  shutdown(): Promise<void> {
    return this.#inner.shutdown();
  }
}

/** A code or a status; what a collector answered stays out of the log. */
function causeOf(error: Error | undefined): string {
  if (error === undefined) return 'unknown';
  return 'code' in error ? String(error.code) : error.name;
}
