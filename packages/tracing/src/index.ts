export { names, operationOf } from './attributes.ts';
export { boundedTracestate } from './context.ts';
export { tracingMistakes, tracingRemarks } from './environment.ts';
export { tracingOptions } from './options.ts';
export { Span, Trace } from './trace.ts';
export { openTracing, type Tracing } from './tracing.ts';
