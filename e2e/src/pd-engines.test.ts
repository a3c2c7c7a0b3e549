import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { freePort, type Service, startEtcd, startRedis, startService, until } from '@llm-gateway/testing';
import { post } from './gateway.ts';
import { allSettled, type Disaggregation, flagsOf, startPdGateway, titleOf } from './pd.ts';

interface Deployment extends Disaggregation {
  readonly store: 'redis' | 'etcd' | 'static';
  readonly as: 'services' | 'standalone';
}

const deployments: readonly Deployment[] = [
  { protocol: 'vllm-kvt', staged: true, store: 'redis', as: 'services' },
  { protocol: 'vllm-mooncake', staged: false, store: 'etcd', as: 'services' },
  { protocol: 'vllm-kvt', staged: false, store: 'static', as: 'standalone' },
  { protocol: 'vllm-mooncake', staged: true, store: 'static', as: 'standalone' },
];

const prefillMs = 50;

/**
 * What simulated engines accept is the protocol to the letter: they refuse a decode that does not
 * fit a prefill which happened.
 */
interface Engines {
  readonly all: readonly Service[];
  /** How the gateway is to find them. */
  readonly discovery: readonly string[];
}

async function startEngines({ protocol, store }: Deployment, stack: AsyncDisposableStack): Promise<Engines> {
  const pace = ['--time-to-first-token-ms', String(prefillMs), '--inter-token-ms', '1', '--response-tokens', '8'];
  const engine = async (flags: readonly string[]) =>
    stack.use(await startService('engine-simulator', ['--kv-connector', protocol, ...pace, ...flags]));
  if (store === 'static') {
    const ports = [await staticPort(), await staticPort()];
    const all = await allSettled(ports.map((port) => engine(['--port', String(port)])));
    const endpoints = ports.map((port) => `127.0.0.1:${port}`).join();
    return { all, discovery: ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', endpoints] };
  }
  const discovery = store === 'redis' ? await redisFlags(stack) : await etcdFlags(stack);
  const all = await allSettled(['kv_producer', 'kv_consumer'].map((role) => engine(['--kv-role', role])));
  const [prefill, decode] = all as [Service, Service];
  await allSettled(
    Object.entries({ prefill, decode }).map(async ([role, { url, addresses }]) => {
      const kv = new URL(addresses.kv ?? '');
      stack.use(
        await startService('registrar', [
          ...['--pod-name', `pod-${role}`, '--instance-type', role],
          ...['--entrypoint-ip', '127.0.0.1', '--entrypoint-port', new URL(url).port],
          ...['--kv-transfer-ip', kv.hostname, '--kv-transfer-port', kv.port, ...discovery],
        ]),
      );
    }),
  );
  return { all, discovery };
}

/**
 * Its KV port, 20000 higher by the rule of static lists, must not be one that the kernel gives to
 * outgoing connections.
 */
async function staticPort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port + 20_000 < 32_768) return port;
  }
}

async function redisFlags(stack: AsyncDisposableStack): Promise<string[]> {
  const { port } = stack.use(await startRedis());
  const address = ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(port)];
  return ['--llm-backend-discovery', 'redis', ...address];
}

async function etcdFlags(stack: AsyncDisposableStack): Promise<string[]> {
  const { endpoint } = stack.use(await startEtcd());
  return ['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', endpoint];
}

async function startGatewayUrl(deployment: Deployment, engines: Engines, stack: AsyncDisposableStack): Promise<string> {
  if (deployment.as === 'standalone') {
    const flags = [...flagsOf(deployment), ...engines.discovery];
    return stack.use(await startService('standalone', flags)).url;
  }
  return stack.use(await startPdGateway(deployment, { flags: { discovery: engines.discovery } })).url;
}

interface State {
  readonly running: number;
  readonly waiting: number;
  readonly transfers: number;
  readonly requests: number;
  readonly promptTokens: number;
}

async function stateOf(engine: Service): Promise<State> {
  return (await (await fetch(`${engine.url}/simulator/state`)).json()) as State;
}

for (const deployment of deployments) {
  const { protocol, staged, store, as } = deployment;
  describe(`${titleOf(deployment)} with engines that hold it to the letter: ${as}, ${store} discovery`, () => {
    let stack: AsyncDisposableStack;
    let engines: Engines;
    let url: string;
    before(async () => {
      stack = new AsyncDisposableStack();
      engines = await startEngines(deployment, stack);
      url = await startGatewayUrl(deployment, engines, stack);
    });
    after(() => stack.disposeAsync());

    const atRest = () =>
      until(
        async () => {
          for (const engine of engines.all) {
            const { running, waiting } = await stateOf(engine);
            assert.deepEqual({ running, waiting }, { running: 0, waiting: 0 });
          }
          return true;
        },
        { what: 'no engine is at work' },
      );

    for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/messages']) {
      for (const stream of [true, false]) {
        it(`serves ${path}, ${stream ? 'streamed' : 'whole'}, by the work of both engines`, async () => {
          const prompt =
            path === '/v1/completions' ? { prompt: 'hello' } : { messages: [{ role: 'user', content: 'hello' }] };
          const earlier = await Promise.all(engines.all.map(stateOf));
          const wanted = {
            stream,
            max_tokens: 5,
            ...(path !== '/v1/messages' && { min_tokens: 2 }),
            model: 'simulated',
          };
          const response = await post(url, JSON.stringify({ ...prompt, ...wanted }), { path });
          const text = await response.text();
          assert.equal(response.status, 200, text);
          if (path === '/v1/messages')
            assert.match(text, stream ? /event: message_stop\ndata: .*\n\n/ : /"stop_reason":"max_tokens"/);
          else if (stream) assert.ok(text.endsWith('data: [DONE]\n\n'), text);
          else assert.equal((JSON.parse(text) as { usage: { completion_tokens: number } }).usage.completion_tokens, 5);
          await atRest();
          const later = await Promise.all(engines.all.map(stateOf));
          const worked = later.filter(({ promptTokens }, at) => promptTokens > (earlier[at]?.promptTokens ?? 0));
          // What a decode engine has a prefill engine compute is no request there.
          assert.equal(worked.length, protocol === 'vllm-kvt' && !staged ? 1 : 2);
          for (const { transfers } of later) assert.equal(transfers, 0, 'what was prefilled was fetched');
        });
      }
    }

    const faults: Readonly<Record<string, Record<string, string>>> = {
      'the prefill fails': { 'x-sim-status': '500', 'x-sim-only': 'prefill' },
      'the prefill dies': { 'x-sim-cut-after': '-1', 'x-sim-reset': 'true', 'x-sim-only': 'prefill' },
      'the decode fails': { 'x-sim-status': '500', 'x-sim-only': 'decode' },
      'the hand-over fails': { 'x-sim-fail': 'transfer' },
    };
    for (const [what, headers] of Object.entries(faults)) {
      it(`answers 5xx and leaves no engine at work when ${what}`, async () => {
        const response = await post(url, '{"prompt":"hello"}', { path: '/v1/completions', headers });
        assert.ok(response.status >= 500, `${response.status} ${await response.text()}`);
        await atRest();
      });
    }

    for (const stalled of ['prefill', 'decode']) {
      it(`leaves no engine at work when a client leaves a stalled ${stalled}`, async () => {
        const controller = new AbortController();
        const headers = { 'x-sim-stall': 'prefill', 'x-sim-only': stalled };
        const seen = (await Promise.all(engines.all.map(stateOf))).reduce((sum, { requests }) => sum + requests, 0);
        const left = post(url, '{"prompt":"hello"}', { path: '/v1/completions', headers, signal: controller.signal });
        await until(async () => {
          const states = await Promise.all(engines.all.map(stateOf));
          const begun = states.reduce((sum, { requests }) => sum + requests, 0) - seen;
          const wanted = stalled === 'prefill' || (protocol === 'vllm-kvt' && !staged) ? 1 : 2;
          return begun >= wanted && states.some(({ running }) => running > 0);
        });
        controller.abort();
        await assert.rejects(left);
        await atRest();
      });
    }

    if (protocol === 'vllm-mooncake') {
      it('serves a request whose prefill hands nothing over', async () => {
        const headers = { 'x-sim-omit': 'kv_transfer_params', 'x-sim-only': 'prefill' };
        const response = await post(url, '{"prompt":"hello"}', { path: '/v1/completions', headers });
        assert.equal(response.status, 200, await response.text());
      });
    }
  });
}
