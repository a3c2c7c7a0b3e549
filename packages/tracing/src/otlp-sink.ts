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
import { Collector, type Delivery, sendFailures } from './collector.ts';
import type { SpanContext } from './context.ts';
import { readCollectorSettings } from './environment.ts';
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
/** Each cause by itself. */
const warnEveryMs = 60_000;

const kinds: Readonly<Record<SpanKind, OtelKind>> = {
  internal: OtelKind.INTERNAL,
  server: OtelKind.SERVER,
  client: OtelKind.CLIENT,
  consumer: OtelKind.CONSUMER,
};

/**
 * Gives kept traces to the official SDK, which sends them in batches. At most `traceQueueSize`
 * spans are held, those on their way among them: a collector that hangs costs that much memory, and
 * the spans that come meanwhile.
 */
export class OtlpSink implements TraceSink, AsyncDisposable {
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  readonly #ids = new GivenIds();
  readonly #ratio: TraceIdRatioBasedSampler;
  readonly #clock = new WallClock();

  constructor(settings: TracingSettings, service: string, host: TracingHost) {
    this.#ratio = new TraceIdRatioBasedSampler(settings.traceRatio);
    const collector = readCollectorSettings(host.environment, settings.otlpEndpoint);
    const exporter = new Collector(tracesUrl(settings.otlpEndpoint), collector);
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

/** Spans get their ids before the SDK creates them, because they were already sent to others. */
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

/**
 * Monotonic milliseconds as time of day. All of a trace is converted alike, so that no step of it
 * begins before its parent.
 */
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
  readonly #count: (outcome: 'sent' | 'dropped' | 'failed', cause: string) => { inc(by?: number): void };
  readonly #overflowed: { inc(by?: number): void };
  readonly #log: TracingHost['log'];
  readonly #warnAtMs = new Map<string, number>();
  #held = 0;

  constructor(collector: Collector, { traceQueueSize, traceIntervalMs }: TracingSettings, host: TracingHost) {
    this.#maxHeld = traceQueueSize;
    this.#log = host.log;
    const spans = host.metrics.counter({
      name: 'trace_spans_total',
      help: 'Spans of kept traces: sent to the collector, dropped (queue full or rejected), or failed, by cause',
      labels: ['outcome', 'cause'],
    });
    this.#count = (outcome, cause) => spans.labels({ outcome, cause });
    // All are there from the start, so that a rate sees the first.
    this.#count('sent', '');
    this.#overflowed = this.#count('dropped', 'queue_full');
    this.#count('dropped', 'rejected');
    for (const cause of sendFailures) this.#count('failed', cause);
    host.metrics.gauge({ name: 'trace_spans_held', help: 'Spans held for the collector', collect: () => this.#held });
    const exporter: SpanExporter = {
      export: (batch: ReadableSpan[], done) =>
        collector.send(batch, (delivery) => {
          this.#delivered(batch.length, delivery);
          done({ code: delivery.failure === undefined ? 0 : 1 });
        }),
      shutdown: () => collector.shutdown(),
      forceFlush: () => collector.forceFlush(),
    };
    this.#inner = new BatchSpanProcessor({
      exporter,
      maxQueueSize: traceQueueSize,
      maxExportBatchSize: Math.min(maxBatch, traceQueueSize),
      scheduledDelayMillis: traceIntervalMs,
    });
  }

  #delivered(spans: number, { rejected, failure }: Delivery): void {
    this.#held -= spans;
    if (failure !== undefined) {
      this.#count('failed', failure.cause).inc(spans);
      this.#warn(failure, 'OpenTelemetry collector accepted no spans; spans dropped');
      return;
    }
    this.#count('sent', '').inc(spans - rejected);
    if (rejected === 0) return;
    this.#count('dropped', 'rejected').inc(rejected);
    this.#warn(
      { cause: 'rejected', rejected, of: spans },
      'OpenTelemetry collector rejected spans; rejected ones dropped',
    );
  }

  #warn(fields: { readonly cause: string; readonly [more: string]: unknown }, message: string): void {
    const now = performance.now();
    if (now < (this.#warnAtMs.get(fields.cause) ?? Number.NEGATIVE_INFINITY)) return;
    this.#warnAtMs.set(fields.cause, now + warnEveryMs);
    this.#log.warn(fields, message);
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if (this.#held >= this.#maxHeld) {
      this.#overflowed.inc();
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
