import { names } from './attributes.ts';
import { newTraceId, parseTraceparent } from './context.ts';
import { tracingRemarks } from './environment.ts';
import type { TracingSettings } from './options.ts';
import { type Attributes, Span, type SpanKind, Trace } from './trace.ts';
import type { TraceSink, TracingHost } from './trace-sink.ts';

export interface BeginOptions {
  readonly kind: SpanKind;
  /** A `traceparent`, of whatever form. */
  readonly parent?: string | undefined;
  /**
   * What becomes of the parent's trace: it goes on; a new one comes of it and is kept with it; or a
   * new one begins that has nothing of it but its name.
   */
  readonly relation?: 'child' | 'linked' | 'restarted';
  readonly startedAtMs?: number;
  readonly attributes?: Attributes;
}

/** Makes the traces of one process. */
export class Tracing {
  readonly slowMs: number;
  /** Whether traces of clients are not gone on with. */
  readonly restarts: boolean;
  readonly #sink: TraceSink;

  constructor(settings: Pick<TracingSettings, 'traceSlowMs' | 'traceRestart'>, sink: TraceSink) {
    this.slowMs = settings.traceSlowMs === 0 ? Number.POSITIVE_INFINITY : settings.traceSlowMs;
    this.restarts = settings.traceRestart;
    this.#sink = sink;
  }

  /**
   * A trace whose root is called `name`. A parent decides whether it is kept, without one the ratio
   * does.
   */
  begin(name: string, options: BeginOptions): Trace {
    const { kind, relation = 'child', startedAtMs = performance.now(), attributes = {} } = options;
    const given = parseTraceparent(options.parent);
    const parent = relation === 'child' ? given : null;
    const id = parent?.traceId ?? newTraceId();
    const root = new Span(name, { kind, parent: undefined, startedAtMs, attributes: { ...attributes } });
    return new Trace(root, {
      id,
      kept: given === null || relation === 'restarted' ? this.#sink.drawn(id) : given.sampled,
      parent,
      link: parent === null ? given : null,
      onEnd: (trace) => this.#sink.export(trace),
    });
  }

  /**
   * This process's part of a trace that another one of ours keeps; null when it does not, or told
   * of none.
   */
  follow(name: string, options: BeginOptions & { readonly parent: string | undefined }): Trace | null {
    return parseTraceparent(options.parent)?.sampled === true ? this.begin(name, options) : null;
  }

  /** Ends a trace; see `Trace.end`. */
  end(trace: Trace, error?: string): void {
    trace.end({ error, leftOutAs: names.spansLeftOut });
  }
}

/**
 * The traces of a process that is called `service`, sent to the collector in the background and
 * closed after the service. Null without a collector: then nothing of OpenTelemetry is even loaded.
 */
export async function openTracing(
  settings: TracingSettings,
  service: string,
  host: TracingHost,
): Promise<Tracing | null> {
  for (const remark of tracingRemarks(settings, host.environment)) host.log.warn({}, remark);
  if (settings.otlpEndpoint === '') return null;
  const { OtlpSink } = await import('./otlp-sink.ts');
  return new Tracing(settings, host.own(new OtlpSink(settings, service, host)));
}
