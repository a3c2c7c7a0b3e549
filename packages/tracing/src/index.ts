export { names, operationOf } from './attributes.ts';
export { tracingOptions } from './options.ts';
export { Span, Trace } from './trace.ts';
export { openTracing, type Tracing } from './tracing.ts';
