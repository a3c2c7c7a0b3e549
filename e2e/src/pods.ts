import { completion, type Engine, respond, type Service, startEngine, startService, until } from '@llm-gateway/testing';
import type { Gateway } from './gateway.ts';

/** An engine and the registrar beside it. */
export interface Pod extends AsyncDisposable {
  readonly name: string;
  readonly engine: Engine;
  readonly registrar: Service;
  /** Requests of clients so far. */
  served(): number;
  /**
   * As Kubernetes ends a pod: the registrar is told first, the engine ends when nobody asks it any
   * more.
   */
  end(): Promise<void>;
}

/** Starts a pod whose record is kept as the flags say. Resolves when the record is written. */
export async function startPod(name: string, storeFlags: readonly string[]): Promise<Pod> {
  await using stack = new AsyncDisposableStack();
  const answer = completion({ delayMs: 5, gapMs: 5 });
  const engine = stack.use(await startEngine(({ url }) => (url === '/health' ? respond(200) : answer)));
  const address = ['--entrypoint-ip', '127.0.0.1', '--entrypoint-port', String(engine.port)];
  const registrar = stack.use(await startService('registrar', ['--pod-name', name, ...address, ...storeFlags]));
  const owned = stack.move();
  const served = () => engine.requests.filter(({ method }) => method === 'POST').length;
  return {
    name,
    engine,
    registrar,
    served,
    async end() {
      await registrar.stop();
      await until(() => idle(engine));
      await owned.disposeAsync();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Resolves when each of the pods got a request of those that come from now on. */
export async function serveAgain(pods: readonly Pod[], timeoutMs = 10_000): Promise<void> {
  const before = pods.map((pod) => pod.served());
  await until(() => pods.every((pod, at) => pod.served() > (before[at] ?? 0)), { timeoutMs, what: 'every pod serves' });
}

/** The sum of a metric over the processes that run. */
export async function sumOf(services: Gateway['discovery'], metric: string): Promise<number> {
  const running = services.filter((service) => !service.ended);
  const readings = await Promise.all(running.map((service) => service.metrics()));
  return readings.reduce((sum, reading) => sum + reading.value(metric), 0);
}

/** Nobody asked for a while, and nothing is in flight. */
function idle(engine: Engine): boolean {
  const last = engine.requests.findLast(({ method }) => method === 'POST');
  return engine.live === 0 && (last === undefined || performance.now() - last.receivedAt > 1000);
}
