import { HeaderLines, headerValue, withHeader } from '@llm-gateway/http1';
import { names, type Span, type Trace, type Tracing } from '@llm-gateway/tracing';
import type { RelayResult } from '@llm-gateway/upstream';
import type { JobLabel } from './observer.ts';

const contextHeader = 'traceparent';

/** What one job adds to the trace of its request: itself, its waits and its calls. */
export class JobTrace {
  readonly #tracing: Tracing;
  readonly #trace: Trace;

  private constructor(tracing: Tracing, trace: Trace) {
    this.#tracing = tracing;
    this.#trace = trace;
  }

  /** Null when the request has no trace that is kept. */
  static of(
    tracing: Tracing | null,
    job: { headers: readonly string[]; requestId: string; endpoint: string },
  ): JobTrace | null {
    const trace = tracing?.follow('retry job', {
      kind: 'consumer',
      parent: headerValue(job.headers, contextHeader),
      attributes: { [names.requestId]: job.requestId, [names.target]: job.endpoint },
    });
    return tracing === null || trace == null ? null : new JobTrace(tracing, trace);
  }

  get id(): string {
    return this.#trace.id;
  }

  waiting(): Span {
    return this.#trace.open('wait');
  }

  /** @param retry the calls that were made for the job before */
  calling(retry: number, target: string): Span {
    return this.#trace.open('call', { kind: 'client', attributes: { [names.target]: target, [names.retry]: retry } });
  }

  headers(headers: readonly string[], span: Span): HeaderLines {
    return HeaderLines.of(withHeader(headers, contextHeader, this.#trace.contextOf(span)));
  }

  called(span: Span, end: RelayResult): void {
    const error = errorOf(end);
    const status = end.kind === 'answered' ? end.status : end.kind === 'rejected' ? end.answer.status : undefined;
    span.set({ [names.status]: status, [names.errorType]: error });
    span.end({ error });
  }

  ended(outcome: JobLabel, calls: number): void {
    this.#trace.root.set({ [names.outcome]: outcome, [names.calls]: calls });
    this.#tracing.end(this.#trace, outcome === 'answered' || outcome === 'cancelled' ? undefined : outcome);
  }
}

/** The outcomes, named as in the ingress. */
function errorOf(end: RelayResult): string | undefined {
  switch (end.kind) {
    case 'rejected':
      return `status_${end.answer.status}`;
    case 'failed':
    case 'broken':
      return end.failure.cause;
    default:
      return undefined;
  }
}
