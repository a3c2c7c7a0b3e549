/**
 * The values that the environment of every OpenTelemetry SDK may have; see `StandardVariable` of
 * `runtime`.
 */
const samplers: Readonly<Record<string, string>> = {
  always_on: '1',
  always_off: '0',
  parentbased_always_on: '1',
  parentbased_always_off: '0',
};

const tracesPath = 'v1/traces';

/** What `openTracing` reads; for services on a request's way. */
export const tracingOptions = {
  'otlp-endpoint': {
    type: 'string',
    default: '',
    description:
      'OpenTelemetry collector that receives traces by OTLP over HTTP (protobuf), such as http://collector:4318; without a path they go to /v1/traces; empty: tracing is off',
    validate: endpointMistake,
    standard: [
      { name: 'OTEL_SDK_DISABLED', read: (text: string) => (text.toLowerCase() === 'true' ? '' : undefined) },
      { name: 'OTEL_TRACES_EXPORTER', read: (text: string) => (text === 'none' ? '' : undefined) },
      { name: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT' },
      {
        name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
        read: withTracesPath,
      },
    ],
  },
  'trace-ratio': {
    type: 'number',
    default: 1,
    min: 0,
    max: 1,
    description:
      'Share of the traces begun here to keep, 0 to 1. Traces with an error, a broken stream, a retry or a slow request are always kept. A trace that came with the request is kept as its sender decided',
    standard: [
      { name: 'OTEL_TRACES_SAMPLER', read: (text: string) => samplers[text] },
      { name: 'OTEL_TRACES_SAMPLER_ARG' },
    ],
  },
  'trace-slow-ms': {
    type: 'integer',
    default: 10_000,
    min: 0,
    description: 'Time to the first byte above which a request is slow and its trace is kept; 0: never',
  },
  'trace-restart': {
    type: 'boolean',
    default: false,
    description:
      "Begin a new trace for each request, linked to the client's, instead of continuing it; for an edge with untrusted clients",
  },
  'trace-queue-size': {
    type: 'integer',
    default: 2048,
    min: 1,
    max: 1_000_000,
    description:
      'Maximum spans held for the collector, including those being sent; further spans are dropped and counted',
    standard: [{ name: 'OTEL_BSP_MAX_QUEUE_SIZE' }],
  },
  'trace-interval-ms': {
    type: 'integer',
    default: 1000,
    min: 1,
    description: 'Interval at which spans are sent when a batch is not full earlier',
    standard: [{ name: 'OTEL_BSP_SCHEDULE_DELAY' }],
  },
} as const;

export interface TracingSettings {
  readonly namespace: string;
  readonly otlpEndpoint: string;
  readonly traceRatio: number;
  readonly traceSlowMs: number;
  readonly traceRestart: boolean;
  readonly traceQueueSize: number;
  readonly traceIntervalMs: number;
}

function endpointMistake(value: string): string | undefined {
  if (value === '') return undefined;
  const url = URL.parse(value);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) return 'allowed: an http or https URL';
  if (url.username !== '' || url.password !== '') return 'credentials belong into OTEL_EXPORTER_OTLP_HEADERS';
  return undefined;
}

/** What is no URL stays as it was written, for the mistake that names it. */
function withTracesPath(text: string): string {
  const url = URL.parse(text);
  if (url === null) return text;
  url.pathname += `${url.pathname.endsWith('/') ? '' : '/'}${tracesPath}`;
  return url.href;
}

/** Where the spans are posted. */
export function tracesUrl(endpoint: string): string {
  const url = new URL(endpoint);
  if (url.pathname === '/') url.pathname = `/${tracesPath}`;
  return url.href;
}
