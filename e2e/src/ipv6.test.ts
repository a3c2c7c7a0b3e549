import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  completion,
  type Engine,
  refuse,
  respond,
  startEngine,
  startEtcd,
  startNats,
  startRedis,
  startService,
  until,
} from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { callsOf, limitedFirst } from './queue.ts';

const host = '::1';

interface Scene extends AsyncDisposable {
  readonly engine: Engine;
  /** Takes what the engine fails to answer, and says 429 first. */
  readonly endpoint: Engine;
  readonly url: string;
}

/**
 * A whole gateway on `::1` alone: nothing of it, and nothing that it needs, can be reached over
 * IPv4.
 */
async function startScene(store: (stack: AsyncDisposableStack) => Promise<readonly string[]>): Promise<Scene> {
  await using stack = new AsyncDisposableStack();
  const answer = completion();
  const engine = stack.use(await startEngine(({ url }) => (url === '/health' ? respond(200) : answer), { host }));
  const limited = limitedFirst(1, () => respond(200, 'from the endpoint'));
  const endpoint = stack.use(await startEngine(limited, { host }));
  const nats = stack.use(await startNats({ host }));
  const storeFlags = await store(stack);
  const start = async (name: string, ...flags: string[]) =>
    stack.use(await startService(name, ['--admin-host', host, ...flags]));
  const bus = ['--nats-servers', nats.url];
  const internal = ['--internal-host', host, '--internal-port', '0', '--advertise-host', host, '--drain-delay-ms', '0'];
  const routes = [
    { base_url: 'local', weight: 1 },
    { base_url: endpoint.url, api_key: 'key', fallback: true },
  ];
  const routing = ['--route-policy', 'weight', '--route-config', JSON.stringify(routes)];
  const address = ['--entrypoint-ip', host, '--entrypoint-port', String(engine.port)];
  await start('registrar', '--pod-name', 'pod', ...address, ...storeFlags);
  const [ingress] = await Promise.all([
    start('ingress', ...bus, ...routing, ...internal, '--host', host, '--fallback-retry-queue-enabled'),
    start('discovery', ...bus, ...storeFlags),
    start('router', ...bus, ...routing),
    start('retry-worker', ...bus, ...routing, ...internal, '--fallback-retry-init-delay-ms', '10'),
  ]);
  const owned = stack.move();
  return { engine, endpoint, url: ingress.url, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const stores = {
  Redis: async (stack: AsyncDisposableStack) => {
    const redis = stack.use(await startRedis({ host }));
    return ['--discovery-redis-host', redis.host, '--discovery-redis-port', String(redis.port)];
  },
  etcd: async (stack: AsyncDisposableStack) => {
    const etcd = stack.use(await startEtcd({ host }));
    return ['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', etcd.endpoint];
  },
};

describe('where there is IPv6 alone', { timeout: 180_000 }, () => {
  for (const [name, store] of Object.entries(stores)) {
    it(`a request is served by an engine that is found in ${name}, and a job by its worker`, async () => {
      await using scene = await startScene(store);
      assert.match(scene.url, /^http:\/\/\[::1\]:\d+$/);
      // The ingress is ready with the list of discovery, which its first poll of the store may not
      // have filled.
      await until(
        async () => {
          assert.equal((await ask(scene.url)).status, 200);
          return scene.engine.requests.some(({ method }) => method === 'POST');
        },
        { what: 'the engine serves a request' },
      );

      scene.engine.script = () => refuse(500);
      const retried = await ask(scene.url, { id: 'retried' });
      assert.equal(retried.text, 'from the endpoint');
      // The ingress asked once; the second call is that of the worker, which it reached at its
      // advertised host.
      assert.equal(callsOf(scene.endpoint, 'retried'), 2);
    });
  }
});
