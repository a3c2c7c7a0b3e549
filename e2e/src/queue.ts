import type { Answer, Engine, Script, Service } from '@llm-gateway/testing';
import { refuse, until } from '@llm-gateway/testing';
import { type Gateway, startGateway } from './gateway.ts';

/** The key of all endpoints. */
export const endpointKey = 'key-of-the-endpoints';

/**
 * A gateway without instances: every request goes down the fallback chain of these endpoints, whose
 * 429s are queued.
 */
export async function startQueue(options: {
  endpoints: readonly Engine[];
  workers: number;
  /** Values of `--fallback-retry-…` by the rest of the name. */
  worker?: Readonly<Record<string, number>>;
  workerFlags?: readonly string[];
  ingress?: readonly string[];
}): Promise<Gateway> {
  const routes = options.endpoints.map(({ url }) => ({ base_url: url, api_key: endpointKey, fallback: true }));
  const routing = ['--route-policy', 'weight', '--route-config', JSON.stringify(routes)];
  const worker = Object.entries(options.worker ?? {}).flatMap(([flag, value]) => [
    `--fallback-retry-${flag}`,
    String(value),
  ]);
  return await startGateway({
    replicas: { discovery: 0, router: 0 },
    with: Array.from({ length: options.workers }, () => 'retry-worker'),
    flags: {
      ingress: [...routing, '--fallback-retry-queue-enabled', '--expose-route-headers', ...(options.ingress ?? [])],
      'retry-worker': [...routing, ...worker, ...(options.workerFlags ?? [])],
    },
  });
}

/** The first `times` calls of each request are answered 429, those after it as told. */
export function limitedFirst(times: number, then: Script, limit: () => Answer = () => refuse(429)): Script {
  const calls = new Map<unknown, number>();
  return (request) => {
    const id = request.headers['x-request-id'];
    const made = calls.get(id) ?? 0;
    calls.set(id, made + 1);
    return made < times ? limit() : then(request);
  };
}

export function callsOf(engine: Engine, id: string): number {
  return engine.requests.filter((request) => request.headers['x-request-id'] === id).length;
}

/** The jobs that a worker holds. */
export async function held(worker: Service): Promise<{ waiting: number; calling: number }> {
  const metrics = await worker.metrics();
  return {
    waiting: metrics.value('llm_gateway_retry_queue_depth'),
    calling: metrics.value('llm_gateway_retry_queue_calls_in_flight'),
  };
}

/** Waits until so many jobs wait at these workers, all together. */
export async function untilWaiting(workers: readonly Service[], count: number): Promise<void> {
  const total = async () => {
    const each = await Promise.all(workers.map(held));
    return each.reduce((sum, { waiting }) => sum + waiting, 0) === count;
  };
  await until(total, { what: `${count} jobs wait` });
}

export async function sumOf(
  services: readonly Service[],
  name: string,
  labels?: Record<string, string>,
): Promise<number> {
  const readings = await Promise.all(services.map((service) => service.metrics()));
  return readings.reduce((sum, metrics) => sum + metrics.value(`llm_gateway_${name}`, labels), 0);
}
