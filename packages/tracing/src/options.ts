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
      'OpenTelemetry collector that gets the traces, by OTLP over HTTP (protobuf), e.g. http://collector:4318; empty: no traces, and no cost. Without a path they go to /v1/traces',
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
      'Share of the traces begun here that is kept; of others those with an error, a broken stream, a retry or a slow request are kept. A trace that came with the request is kept as its sender says',
    standard: [
      { name: 'OTEL_TRACES_SAMPLER', read: (text: string) => samplers[text] },
      { name: 'OTEL_TRACES_SAMPLER_ARG' },
    ],
  },
  'trace-slow-ms': {
    type: 'integer',
    default: 10_000,
    min: 0,
    description: 'A request whose first byte takes longer is slow, and its trace is kept; 0: none is',
  },
  'trace-restart': {
    type: 'boolean',
    default: false,
    description:
      "Begin a new trace for each request, linked to the client's, instead of going on with that: for an edge whose clients are not ours",
  },
  'trace-queue-size': {
    type: 'integer',
    default: 2048,
    min: 1,
    max: 1_000_000,
    description: 'Spans held for the collector, those being sent among them; beyond it they are dropped and counted',
    standard: [{ name: 'OTEL_BSP_MAX_QUEUE_SIZE' }],
  },
  'trace-interval-ms': {
    type: 'integer',
    default: 1000,
    min: 1,
    description: 'How often spans are sent, where they are too few to be sent earlier',
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
