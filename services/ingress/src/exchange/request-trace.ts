import {
  type HeaderLines,
  headerValue,
  headerValues,
  HeaderLines as Lines,
  withHeader,
  withoutHeaders,
} from '@llm-gateway/http1';
import { boundedTracestate, names, operationOf, type Span, type Trace, type Tracing } from '@llm-gateway/tracing';
import type { UpstreamRequest } from '@llm-gateway/upstream';
import type { ClientRequest } from '../http/client-request.ts';
import { templateOf } from '../http/surface.ts';
import type { AttemptRecord, Phase, RequestResult, RouteLabel, StreamProgress, TargetKind } from './request-record.ts';

const contextHeader = 'traceparent';
/**
 * What a client's tracing says of itself, in the same words: not of a trace that is not its own.
 */
const vendorHeader = 'tracestate';
const vendorHeaders: ReadonlySet<string> = new Set([vendorHeader]);

/** What a call is to the request. */
export type CallName = 'call' | 'prefill' | 'decode';

/** A step that others go on with. */
export interface TracedStep {
  readonly span: Span;
  /** The `traceparent` within it. */
  readonly traceparent: string;
}

/** What a trace says of its request. */
interface TracedRequest {
  readonly startedAtMs: number;
  /** Why the received data is not a request; null for a request. */
  readonly problem: object | null;
  readonly requestBytes: number;
  readonly model: string | null;
  readonly isStream: boolean;
  readonly phase: Phase;
  readonly route: RouteLabel;
  readonly endpoint: string;
  readonly prefill: string | undefined;
  readonly attempts: number;
  readonly records: readonly AttemptRecord[];
  readonly errorCode: string | undefined;
  readonly brokenBy: string | undefined;
  readonly stream: StreamProgress | null;
  readonly client: { readonly committed: boolean; readonly committedAtMs: number; readonly bodyBytes: number };
}

/**
 * The trace of one request: a span for it, and one for each of its steps. There is none while
 * tracing is off.
 */
export class RequestTrace {
  readonly #tracing: Tracing;
  readonly #trace: Trace;
  /** What calls get as `tracestate` where they go on with the client's trace. */
  readonly #state: string | undefined;
  #bodyIsRead = false;
  /** Goes on while retry workers have the request. */
  #queue: Span | undefined;

  constructor(tracing: Tracing, request: ClientRequest, startedAtMs: number) {
    const { method, path, place } = request;
    const operation = operationOf(path);
    const template = templateOf(place);
    const given = contextOf(request);
    this.#tracing = tracing;
    this.#state = given.state;
    // Names are few, whatever clients ask for.
    this.#trace = tracing.begin(`${method || 'HTTP'}${template ? ` ${template}` : ''}`, {
      kind: 'server',
      parent: given.parent,
      relation: tracing.restarts ? 'restarted' : 'child',
      startedAtMs,
      attributes: {
        [names.requestId]: request.id,
        [names.method]: method || undefined,
        [names.path]: path || undefined,
        [names.httpRoute]: template,
        [names.operation]: operation,
      },
    });
  }

  get id(): string {
    return this.#trace.id;
  }

  /** The id, once it is known that the trace is kept. */
  get keptId(): string | undefined {
    return this.#trace.kept ? this.#trace.id : undefined;
  }

  /** The `traceparent` of the request as a whole. */
  get traceparent(): string {
    return this.#trace.contextOf(this.#trace.root);
  }

  bodyRead(request: TracedRequest): void {
    this.#bodyIsRead = true;
    const span = this.#openBody(request);
    span.set({ [names.requestBytes]: request.requestBytes });
    span.end();
    this.#trace.root.set({
      [names.requestModel]: request.model ?? undefined,
      [names.stream]: request.isStream,
    });
  }

  #openBody(request: TracedRequest): Span {
    return this.#trace.open('read body', { startedAtMs: request.startedAtMs });
  }

  /** A decision that took no message. */
  decided(by: 'lease' | 'policy', startedAtMs: number): void {
    this.#trace.open('decide', { startedAtMs, attributes: { [names.decisionBy]: by } }).end();
  }

  /** A decision that a router is asked for, or that is made here. */
  deciding(stage: string): TracedStep {
    return this.#step(this.#trace.open('decide', { attributes: { [names.decisionStage]: stage } }));
  }

  /** Nothing is done until it ends. */
  waiting(): Span {
    return this.#trace.open('wait');
  }

  /** Retry workers are offered the request, and may have it. */
  queued(): Span {
    this.#trace.keep();
    this.#queue = this.#trace.open('queue');
    return this.#queue;
  }

  /** A call begins: its span, and the request as it is sent. */
  calling(
    request: UpstreamRequest,
    call: { name: CallName; kind: TargetKind; target: string; retry: number },
  ): { readonly span: Span; readonly request: UpstreamRequest } {
    const { name, kind, target, retry } = call;
    if (retry > 0) this.#trace.keep();
    const span = this.#trace.open(name, {
      kind: 'client',
      parent: kind === 'worker' ? this.#queue : undefined,
      attributes: {
        [names.targetKind]: kind,
        [names.target]: target,
        [names.instance]: kind === 'internal' ? target : undefined,
        [names.serverAddress]: URL.parse(request.origin)?.host,
        [names.retry]: retry,
      },
    });
    return { span, request: { ...request, headers: this.#headers(request.headers, span) } };
  }

  called(span: Span, { kind, cause, status }: AttemptRecord): void {
    if (kind !== 'answered' && kind !== 'cancelled') this.#trace.keep();
    span.set({ [names.outcome]: kind, [names.status]: status, [names.errorType]: cause || undefined });
    span.end({ error: cause || undefined });
  }

  #headers(headers: HeaderLines, span: Span): HeaderLines {
    const own = withHeader(headers.list, contextHeader, this.#trace.contextOf(span));
    if (this.#trace.parent === null || this.#state === undefined) return Lines.of(withoutHeaders(own, vendorHeaders));
    // Not every target gets all of the client's headers.
    return Lines.of(headerValue(own, vendorHeader) === undefined ? own : withHeader(own, vendorHeader, this.#state));
  }

  /** Headers of a mirror copy: its sender begins a new trace, linked to this one. */
  copyHeaders(headers: readonly string[]): readonly string[] {
    return withoutHeaders(withHeader(headers, contextHeader, this.traceparent), vendorHeaders);
  }

  /** The request is over. Whether its trace is worth keeping is known only now. */
  finished(request: TracedRequest, { status, kind, firstByteMs, durationMs }: RequestResult): void {
    const { client, stream } = request;
    const error = kind === 'failed' ? causeOf(request, status) : undefined;
    const isSlow = (firstByteMs ?? durationMs) > this.#tracing.slowMs;
    if (error !== undefined || isSlow) this.#trace.keep();
    if (!this.#trace.kept) return;
    if (!this.#bodyIsRead && request.problem === null) this.#openBody(request).end({ error: request.errorCode });
    const { root } = this.#trace;
    const firstContentAtMs = stream?.firstContentAtMs ?? 0;
    if (client.committed) root.events.push({ name: 'first byte', atMs: client.committedAtMs });
    if (firstContentAtMs > 0) root.events.push({ name: 'first token', atMs: firstContentAtMs });
    root.set({
      [names.status]: status,
      [names.outcome]: kind,
      [names.phase]: kind === 'cancelled' ? request.phase : undefined,
      [names.route]: request.route,
      [names.target]: request.endpoint || undefined,
      [names.prefill]: request.prefill,
      [names.attempts]: request.attempts,
      [names.responseBytes]: client.bodyBytes,
      [names.timeToFirstToken]: firstContentAtMs > 0 ? (firstContentAtMs - request.startedAtMs) / 1000 : undefined,
      [names.errorType]: error ?? (status >= 400 ? (request.errorCode ?? String(status)) : undefined),
    });
    this.#tracing.end(this.#trace, error);
  }

  #step(span: Span): TracedStep {
    return { span, traceparent: this.#trace.contextOf(span) };
  }
}

/**
 * The one word that the log line and the metrics have as well: why the last call failed, else what
 * the gateway itself says.
 */
function causeOf(request: TracedRequest, status: number): string {
  const last = request.records.findLast(({ cause }) => cause !== '');
  return request.brokenBy ?? last?.cause ?? request.errorCode ?? `status_${status}`;
}

/**
 * The client's own trace. Of several `traceparent`s none is known to be the right one, so it has
 * none.
 */
function contextOf({ head }: ClientRequest): {
  readonly parent: string | undefined;
  readonly state: string | undefined;
} {
  const first = head?.noted(contextHeader);
  if (head === null || first === undefined) return { parent: undefined, state: undefined };
  const { list } = head.headers;
  const [parent, more] = headerValues(list, contextHeader);
  return {
    parent: more === undefined ? parent : undefined,
    state: boundedTracestate(headerValues(list, vendorHeader)),
  };
}
