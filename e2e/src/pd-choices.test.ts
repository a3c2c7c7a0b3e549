import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  discoveryRecord,
  type Engine,
  freePort,
  refuse,
  respond,
  type Script,
  setRedis,
  startEngine,
  startRedis,
  until,
} from '@llm-gateway/testing';
import { type Gateway, post } from './gateway.ts';
import { type Disaggregation, disaggregations, halves, paramsOf, startPdGateway, titleOf } from './pd.ts';

interface Registered {
  readonly type: 'prefill' | 'decode';
  readonly port: number;
  readonly kvPort?: number;
  readonly model?: string;
}

/** A gateway that finds its instances, by their names, in a store of its own. */
async function startRegistered(
  disaggregation: Disaggregation,
  instances: Readonly<Record<string, Registered>>,
  { stack, flags = {} }: { stack: AsyncDisposableStack; flags?: { router?: string[]; ingress?: string[] } },
): Promise<Gateway> {
  const redis = stack.use(await startRedis());
  const timestampMs = Date.now() + 60_000;
  const records = Object.entries(instances).map(([podName, { kvPort = 0, ...instance }]) => {
    const kv = kvPort === 0 ? {} : { kvIp: '127.0.0.1', kvPort };
    const record = { podName, timestampMs, instances: [{ ...instance, ...kv, dpSize: 1 }] };
    return [`llumnix:discovery:${podName}`, discoveryRecord(record)] as const;
  });
  await setRedis(redis, Object.fromEntries(records));
  const store = ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)];
  return stack.use(await startPdGateway(disaggregation, { flags: { ...flags, discovery: store } }));
}

async function startEngines(count: number, script: Script, stack: AsyncDisposableStack): Promise<Engine[]> {
  return await Promise.all(Array.from({ length: count }, async () => stack.use(await startEngine(script))));
}

const callsOf = ({ requests }: Engine) => requests.filter(({ method }) => method === 'POST');

/** Asks so often, one after the other; answers how often there was each status. */
async function statusesOf(gateway: Gateway, count: number, body = '{"prompt":"x"}'): Promise<Record<number, number>> {
  const statuses: Record<number, number> = {};
  for (let asked = 0; asked < count; asked++) {
    const response = await post(gateway.url, body, { path: '/v1/completions' });
    await response.text();
    statuses[response.status] = (statuses[response.status] ?? 0) + 1;
  }
  return statuses;
}

function portOf(request: Parameters<typeof paramsOf>[0]): number | undefined {
  return ((paramsOf(request) ?? {}) as { remote_port?: number }).remote_port;
}

const ejected = async ({ router }: Gateway, role: string) =>
  (await router[0]?.metrics())?.value('llm_gateway_router_instances', { role, state: 'ejected' });

for (const policy of ['round-robin', 'load-balance']) {
  it(`vllm-kvt batched, ${policy}: a dead prefill engine is left alone, and no decode engine for it`, async () => {
    await using stack = new AsyncDisposableStack();
    const [deadKv, liveKv] = [21_000, 21_001];
    const decodes = await startEngines(
      3,
      (request) => {
        return portOf(request) === deadKv ? refuse(500) : respond(200, '{"ok":1}');
      },
      stack,
    );
    // Nobody listens on the ports of the two: the decode engines speak of them, the gateway never calls them.
    const gateway = await startRegistered(
      { protocol: 'vllm-kvt', staged: false },
      {
        dead: { type: 'prefill', port: await freePort(), kvPort: deadKv },
        live: { type: 'prefill', port: await freePort(), kvPort: liveKv },
        ...Object.fromEntries(decodes.map(({ port }, at) => [`d${at}`, { type: 'decode' as const, port }])),
      },
      { stack, flags: { router: ['--scheduling-policy', policy], ingress: ['--retry-max-count', '1'] } },
    );
    assert.deepEqual(await statusesOf(gateway, 30), { 200: 30 });
    // Under load-balance its first failures keep it from the further ones that an ejection takes.
    if (policy === 'round-robin') {
      await until(async () => (await ejected(gateway, 'prefill')) === 1, { what: 'the dead one is ejected' });
    }
    const ofDead = decodes.flatMap(callsOf).filter((request) => portOf(request) === deadKv);
    assert.ok(ofDead.length <= 10, `${ofDead.length} of 30 requests met the dead one`);
    assert.equal(await ejected(gateway, 'decode'), 0);
  });
}

describe('a prefill engine to which no connection can be made', () => {
  // Of the other one no prefill engine is called.
  for (const disaggregation of disaggregations.filter(({ protocol, staged }) => staged || protocol !== 'vllm-kvt')) {
    it(`costs a retry, and is left alone: ${titleOf(disaggregation)}`, async () => {
      await using stack = new AsyncDisposableStack();
      const engine = halves({
        prefill: () => respond(200, '{"kv_transfer_params":{"a":1}}'),
        decode: () => respond(200, '{"ok":1}'),
      });
      const [prefill, decode] = (await startEngines(2, engine, stack)) as [Engine, Engine];
      const gateway = await startRegistered(
        disaggregation,
        {
          dead: { type: 'prefill', port: await freePort(), kvPort: 4241 },
          live: { type: 'prefill', port: prefill.port, kvPort: 4242 },
          decode: { type: 'decode', port: decode.port },
        },
        { stack, flags: { ingress: ['--retry-max-count', '1'] } },
      );
      assert.deepEqual(await statusesOf(gateway, 10), { 200: 10 });
      await until(async () => (await ejected(gateway, 'prefill')) === 1, { what: 'the dead one is ejected' });
      assert.equal(await ejected(gateway, 'decode'), 0);
      assert.equal(callsOf(prefill).length, 10);
      const metrics = await gateway.ingress[0]?.metrics();
      assert.ok((metrics?.value('llm_gateway_retries_total', { cause: 'refused' }) ?? 0) >= 3);
    });
  }
});

describe('of two engines that do both halves, one of which does not decode', () => {
  for (const disaggregation of disaggregations) {
    it(`a retry leaves that one alone: ${titleOf(disaggregation)}`, async () => {
      await using stack = new AsyncDisposableStack();
      const prefill = () => respond(200, '{"kv_transfer_params":{"a":1}}');
      const good = stack.use(await startEngine(halves({ prefill, decode: () => respond(200, '{"ok":1}') })));
      const bad = stack.use(await startEngine(halves({ prefill, decode: () => refuse(500) })));
      const gateway = stack.use(
        await startPdGateway(disaggregation, {
          engines: [good, bad],
          flags: { router: ['--scheduling-policy', 'load-balance'], ingress: ['--retry-max-count', '1'] },
        }),
      );
      assert.deepEqual(await statusesOf(gateway, 30), { 200: 30 });
      assert.ok(callsOf(bad).length > 0);
    });
  }
});

describe('a request that names no model', () => {
  for (const staged of [false, true]) {
    it(`is prefilled and decoded for one model: ${titleOf({ protocol: 'vllm-mooncake', staged })}`, async () => {
      await using stack = new AsyncDisposableStack();
      const engineOf = async (model: string) =>
        stack.use(
          await startEngine(
            halves({
              prefill: () => respond(200, `{"kv_transfer_params":{"prefilled":"${model}"}}`),
              decode: (request) => {
                const { prefilled } = (paramsOf(request) ?? {}) as { prefilled?: string };
                return prefilled === model ? respond(200, '{"ok":1}') : refuse(400);
              },
            }),
          ),
        );
      const models = { prefill: ['a', 'b', 'nobody-decodes'], decode: ['a', 'a', 'b'] } as const;
      const instances: Record<string, Registered> = {};
      for (const type of ['prefill', 'decode'] as const) {
        for (const [at, model] of models[type].entries()) {
          const { port } = await engineOf(model);
          instances[`${type}-${at}`] = { type, port, model };
        }
      }
      const gateway = await startRegistered({ protocol: 'vllm-mooncake', staged }, instances, { stack });
      assert.deepEqual(await statusesOf(gateway, 12), { 200: 12 });
      assert.deepEqual(await statusesOf(gateway, 1, '{"model":"a","prompt":"x"}'), { 200: 1 });
    });
  }
});

describe('an instance that registers without a kv_transfer address', () => {
  for (const staged of [false, true]) {
    it(`prefills nothing, and a router says so once: ${titleOf({ protocol: 'vllm-kvt', staged })}`, async () => {
      await using stack = new AsyncDisposableStack();
      const engine = () => startEngines(1, () => respond(200, '{"ok":1}'), stack).then(([one]) => one as Engine);
      const [without, prefill, decode] = [await engine(), await engine(), await engine()];
      const gateway = await startRegistered(
        { protocol: 'vllm-kvt', staged },
        {
          without: { type: 'prefill', port: without.port },
          prefill: { type: 'prefill', port: prefill.port, kvPort: 4242 },
          decode: { type: 'decode', port: decode.port },
        },
        { stack },
      );
      assert.deepEqual(await statusesOf(gateway, 4), { 200: 4 });
      const address = { remote_host: '127.0.0.1', remote_port: 4242 };
      const expected = staged ? { do_remote_prefill: true, ...address } : address;
      assert.deepEqual(callsOf(decode).map(paramsOf), [expected, expected, expected, expected]);
      assert.equal(callsOf(without).length, 0);
      const warnings = () => gateway.router.flatMap((router) => router.logs()).filter(({ level }) => level === 'warn');
      await until(() => warnings().length > 0, { what: 'a router has said so' });
      assert.deepEqual(
        warnings().map(({ instance }) => instance),
        ['without_dp0'],
      );
      // Nor does the ingress take it when it decides itself.
      for (const router of gateway.router) await router.kill();
      assert.deepEqual(await statusesOf(gateway, 4), { 200: 4 });
      assert.equal(callsOf(without).length, 0);
    });
  }
});
