import type { Environment } from './environment.ts';
import type { Trace } from './trace.ts';

/** What of a process tracing reports to and lives in; the runtime's `Parts` fit. */
export interface TracingHost {
  readonly log: { warn(fields: object, message: string): void };
  readonly environment: Environment;
  readonly metrics: {
    counter(spec: { name: string; help: string; labels: readonly string[] }): {
      labels(values: Readonly<Record<string, string>>): { inc(by?: number): void };
    };
    gauge(spec: { name: string; help: string; collect: () => number }): unknown;
  };
  own<Resource extends AsyncDisposable>(resource: Resource): Resource;
}

/** Where spans of a kept trace go. Never waits, never throws. */
export interface TraceSink {
  /** Whether a trace of this id is drawn. */
  drawn(traceId: string): boolean;
  export(trace: Trace): void;
}
