import {
  type Engine,
  type NatsOptions,
  type NatsServer,
  type Service,
  type ServiceOptions,
  startNats,
  startService,
} from '@llm-gateway/testing';

export interface GatewayOptions {
  /** Static endpoints; without them `discovery` says where instances come from. */
  readonly engines?: readonly Engine[];
  readonly replicas?: {
    readonly ingress?: number;
    readonly router?: number;
    readonly discovery?: number;
    readonly limiter?: number;
  };
  /** Flags for each of a service's processes, beside those for the bus. */
  readonly flags?: Partial<Record<ServiceName, readonly string[]>>;
  readonly nats?: NatsOptions;
  /** Further services, one process each, such as `retry-worker`. */
  readonly with?: readonly ServiceName[];
}

/** Of one process, beside those of its service. */
export interface StartOptions extends ServiceOptions {
  readonly flags?: readonly string[];
}

export type ServiceName = 'ingress' | 'router' | 'discovery' | 'retry-worker' | 'mirror-sender' | 'limiter' | 'console';

/** The gateway as separate processes over a real nats-server. */
export interface Gateway extends AsyncDisposable {
  readonly nats: NatsServer;
  /** Base URL of the first ingress. */
  readonly url: string;
  readonly ingress: readonly Service[];
  readonly router: readonly Service[];
  readonly discovery: readonly Service[];
  /** None unless `replicas` says so. */
  readonly limiter: readonly Service[];
  /** Those of `with`, in that order. */
  readonly others: readonly Service[];
  /** Starts one more process of a service; it is stopped with the rest. */
  start(name: ServiceName, options?: StartOptions): Promise<Service>;
}

export async function startGateway(options: GatewayOptions = {}): Promise<Gateway> {
  const { engines, replicas = {}, flags = {} } = options;
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats(options.nats));
  const endpoints = engines?.map((engine) => engine.address).join(',');
  const own: Partial<Record<ServiceName, readonly string[]>> = {
    discovery:
      endpoints === undefined ? [] : ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', endpoints],
    ingress: ['--drain-delay-ms', '0', '--internal-host', '127.0.0.1'],
    'retry-worker': ['--drain-delay-ms', '0', '--internal-host', '127.0.0.1'],
    'mirror-sender': ['--drain-delay-ms', '0'],
  };
  const start = (name: ServiceName, { flags: more = [], ...settings }: StartOptions = {}) =>
    startService(name, ['--nats-servers', nats.url, ...(own[name] ?? []), ...(flags[name] ?? []), ...more], settings);
  const several = (name: ServiceName, count = 1) => Array.from({ length: count }, () => name);
  const names = [
    ...several('discovery', replicas.discovery),
    ...several('router', replicas.router),
    ...several('limiter', replicas.limiter ?? 0),
    ...several('ingress', replicas.ingress),
    ...(options.with ?? []),
  ];
  // All of them, before one that failed is told of: those that started must be stopped with the rest.
  const started = await Promise.allSettled(names.map(async (name) => stack.use(await start(name))));
  const services = started.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
  const named = (name: ServiceName) => services.filter((_, index) => names[index] === name);
  const owned = stack.move();
  return {
    nats,
    url: named('ingress')[0]?.url ?? '',
    ingress: named('ingress'),
    router: named('router'),
    discovery: named('discovery'),
    limiter: named('limiter'),
    others: services.slice(services.length - (options.with ?? []).length),
    start: async (name, settings) => owned.use(await start(name, settings)),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The body of a chat request, as bytes on the wire. */
export function chat(options: { stream?: boolean; model?: string; content?: string } = {}): string {
  const { stream = false, model = 'test', content = 'Hello' } = options;
  return JSON.stringify({ model, stream, messages: [{ role: 'user', content }] });
}

/** POSTs a body to a path of the gateway. */
export function post(
  base: string,
  body: string | Uint8Array<ArrayBuffer>,
  options: { path?: string; headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Response> {
  const { path = '/v1/chat/completions', headers, signal } = options;
  return fetch(base + path, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...headers },
    signal: signal ?? null,
  });
}
