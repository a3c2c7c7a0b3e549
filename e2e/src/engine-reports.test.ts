import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  nodePath,
  type RedisServer,
  respond,
  type Service,
  startEngine,
  startProcess,
  startRedis,
  startService,
  until,
} from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

const short = JSON.stringify({ ...JSON.parse(chat({ model: 'simulated' })), max_tokens: 2 });
const cli = join(import.meta.dirname, '../../cli/bin/llm-gateway.js');

interface Shown {
  readonly id: string;
  readonly engine: { readonly running: number; readonly waiting: number; readonly kvUsage: number | null } | null;
}

/** What a command of operators answers. */
async function answerOf(command: 'instances' | 'status', { nats }: Gateway) {
  await using child = await startProcess(nodePath, [cli, command, '--json', '--nats-servers', nats.url]);
  const { code } = await child.exited;
  assert.equal(code, 0, child.output());
  return JSON.parse(child.lines()[0] ?? '');
}

/** What an operator sees of the engines. */
function instances(gateway: Gateway): Promise<Shown[]> {
  return answerOf('instances', gateway);
}

describe('load that did not come through the gateway', () => {
  let stack: AsyncDisposableStack;
  let redis: RedisServer;
  let gateway: Gateway;
  const engines = new Map<string, Service>();
  const registrars = new Map<string, Service>();

  const startRegistrar = async (name: string) => {
    const { port } = new URL(engines.get(name)?.url ?? '');
    const address = ['--pod-name', name, '--entrypoint-ip', '127.0.0.1', '--entrypoint-port', port];
    const store = ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)];
    const flags = [...address, ...store, '--nats-servers', gateway.nats.url];
    registrars.set(name, stack.use(await startService('registrar', flags)));
  };
  /** Who served so many requests, one after the other. */
  const served = async (count: number) => {
    const names: string[] = [];
    for (let at = 0; at < count; at++) {
      const response = await post(gateway.url, short);
      assert.equal(response.status, 200);
      await response.text();
      names.push(response.headers.get('x-gateway-endpoint') ?? '');
    }
    return names;
  };
  /** Streams straight to one engine, until the signal. */
  const load = (name: string, count: number, signal: AbortSignal) => {
    for (let at = 0; at < count; at++) {
      void post(engines.get(name)?.url ?? '', chat({ model: 'simulated', stream: true }), { signal })
        .then((response) => response.text())
        .catch(() => undefined);
    }
  };

  before(async () => {
    stack = new AsyncDisposableStack();
    redis = stack.use(await startRedis());
    const policy = ['--scheduling-policy', 'load-balance'];
    gateway = stack.use(
      await startGateway({
        flags: {
          discovery: ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
          router: [...policy, '--slow-start-ms', '0'],
          ingress: [...policy, '--expose-route-headers', '--no-decision-leases'],
        },
      }),
    );
    const pace = ['--time-to-first-token-ms', '1', '--inter-token-ms', '2', '--response-tokens', '100000'];
    for (const name of ['a', 'b']) {
      engines.set(name, stack.use(await startService('engine-simulator', [...pace, '--name', name])));
      await startRegistrar(name);
    }
    await until(async () => (await gateway.router[0]?.metrics())?.value('llm_gateway_router_instances') === 2, {
      timeoutMs: 20_000,
    });
  });
  after(() => stack.disposeAsync());

  it('keeps requests away while it is reported, is unknown soon after the reporter died, and known again with the next', async () => {
    assert.deepEqual([...new Set(await served(6))].sort(), ['a_dp0', 'b_dp0']);
    const others = new AbortController();
    load('a', 12, others.signal);
    const spared = async () => new Set(await served(6)).size === 1;
    await until(spared, { what: 'nothing goes to the busy engine' });
    assert.deepEqual(new Set(await served(10)), new Set(['b_dp0']));
    const shown = await instances(gateway);
    assert.deepEqual(shown.map(({ id, engine }) => [id, engine?.running]).sort(), [
      ['a_dp0', 12],
      ['b_dp0', 0],
    ]);

    const { processes }: { processes: { service: string; state: string }[] } = await answerOf('status', gateway);
    assert.deepEqual(
      processes.filter(({ service }) => service === 'registrar').map(({ state }) => state),
      ['ready', 'ready'],
    );

    const killedAt = performance.now();
    await registrars.get('a')?.kill('SIGKILL');
    await until(async () => !(await spared()), { what: 'what the engine said is too old' });
    const forgottenMs = performance.now() - killedAt;
    assert.ok(forgottenMs > 1000, `${forgottenMs}`);
    assert.equal((await instances(gateway)).find(({ id }) => id === 'a_dp0')?.engine, null);

    await startRegistrar('a');
    await until(spared, { what: 'the new reporter is heard' });
    others.abort();
    await until(async () => !(await spared()), { what: 'the load of others is over' });
    const metrics = await gateway.router[0]?.metrics();
    assert.ok((metrics?.value('llm_gateway_router_engine_reports_total', { result: 'taken' }) ?? 0) > 5);
    assert.ok((await registrars.get('b')?.metrics())?.value('llm_gateway_engine_reports_total'));
  });

  it('is read by discovery where there is no registrar', async () => {
    const text = 'vllm:num_requests_running 7\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 0.25\n';
    await using engine = await startEngine(({ url }) => respond(url === '/metrics' ? 200 : 404, text));
    await using site = await startGateway({
      engines: [engine],
      flags: { discovery: ['--engine-metrics-interval-ms', '200'] },
    });
    await until(async () => {
      const [shown] = await instances(site);
      return shown?.engine?.running === 7 && shown.engine.waiting === 2 && shown.engine.kvUsage === 0.25;
    });
    const [discovery] = site.discovery;
    assert.equal((await discovery?.metrics())?.value('llm_gateway_engine_metrics_failures_total'), 0);
  });
});
