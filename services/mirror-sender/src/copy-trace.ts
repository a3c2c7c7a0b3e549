import type { MirrorCopy } from '@llm-gateway/protocol';
import { names, type Trace, type Tracing } from '@llm-gateway/tracing';
import type { CopyResult } from './copy-call.ts';

const contextHeader = 'traceparent';

/**
 * A trace of its own for a copy, which comes of that of its request: nobody waits for it, and it
 * must not look like a part of the answer.
 */
export class CopyTrace {
  readonly #tracing: Tracing;
  readonly #trace: Trace;

  private constructor(tracing: Tracing, trace: Trace) {
    this.#tracing = tracing;
    this.#trace = trace;
  }

  /** Null when the request has no trace that is kept. */
  static of(tracing: Tracing | null, { headers, requestId, url }: MirrorCopy): CopyTrace | null {
    const trace = tracing?.follow('mirror copy', {
      kind: 'consumer',
      relation: 'linked',
      parent: headers.find(([name]) => name.toLowerCase() === contextHeader)?.[1],
      attributes: { [names.requestId]: requestId, [names.target]: URL.parse(url)?.host },
    });
    return tracing === null || trace == null ? null : new CopyTrace(tracing, trace);
  }

  /** The copy as the target gets it, within this trace. */
  traced(copy: MirrorCopy): MirrorCopy {
    const others = copy.headers.filter(([name]) => name.toLowerCase() !== contextHeader);
    return { ...copy, headers: [...others, [contextHeader, this.#trace.contextOf(this.#trace.root)]] };
  }

  ended({ kind, cause, status, bytes }: CopyResult): void {
    this.#trace.root.set({
      [names.outcome]: kind,
      [names.status]: status ?? undefined,
      [names.responseBytes]: bytes,
      [names.errorType]: cause || undefined,
    });
    this.#tracing.end(this.#trace, cause || undefined);
  }
}
