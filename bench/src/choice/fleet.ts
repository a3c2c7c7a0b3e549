import { once } from 'node:events';
import { createServer } from 'node:net';
import { type Service, startNats, startService } from '@llm-gateway/testing';

export interface FleetOptions {
  readonly policy: 'round-robin' | 'load-balance' | 'cache-aware';
  readonly routers: number;
  readonly ingresses: number;
  readonly instances: number;
  readonly prefillTokensPerS: number;
  readonly kvBlocks: number;
  readonly interTokenMs: number;
}

export interface Fleet extends AsyncDisposable {
  /** Of the ingresses. */
  readonly urls: readonly string[];
  readonly routers: readonly Service[];
  /** Starts one more router. */
  addRouter(): Promise<void>;
}

/** About so many bytes of prompts fit into a block: its text, and what JSON has around it. */
const bytesPerBlock = 1560;

/**
 * The gateway over a real nats-server, in front of modelled engines: as many ranks of one simulator
 * as there are instances.
 */
export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const { policy, instances, kvBlocks } = options;
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const bus = ['--nats-servers', nats.url, '--drain-delay-ms', '0'];
  const port = await freePorts(instances);
  const engineFlags = {
    host: '127.0.0.1',
    port,
    'dp-size': instances,
    'prefill-tokens-per-s': options.prefillTokensPerS,
    'kv-blocks': kvBlocks,
    'batch-slowdown': 0.01,
    'inter-token-ms': options.interTokenMs,
    'response-tokens': 4096,
  };
  const named = Object.entries(engineFlags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  stack.use(await startService('engine-simulator', [...named]));
  const endpoints = Array.from({ length: instances }, (_, rank) => `127.0.0.1:${port + rank}`).join(',');
  const routers: Service[] = [];
  const started = stack.use(new AsyncDisposableStack());
  const addRouter = async () => {
    const flags = ['--instance-kv-bytes', String(kvBlocks * bytesPerBlock), '--slow-start-ms', '0'];
    routers.push(started.use(await startService('router', ['--scheduling-policy', policy, ...flags, ...bus])));
  };
  const list = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', endpoints];
  stack.use(await startService('discovery', [...list, ...bus]));
  for (let at = 0; at < options.routers; at++) await addRouter();
  const doors: Service[] = [];
  for (let at = 0; at < options.ingresses; at++) {
    const flags = ['--host', '127.0.0.1', '--scheduling-policy', policy];
    doors.push(stack.use(await startService('ingress', [...flags, ...bus])));
  }
  const owned = stack.move();
  return { urls: doors.map(({ url }) => url), routers, addRouter, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The first of so many ports in a row that are free, below those that the system gives away. */
async function freePorts(count: number): Promise<number> {
  for (;;) {
    const first = 20_000 + Math.floor(Math.random() * 10_000);
    const free = await Promise.all(Array.from({ length: count }, (_, at) => isFree(first + at)));
    if (free.every(Boolean)) return first;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening');
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}
