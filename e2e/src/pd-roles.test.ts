import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Answer,
  type Engine,
  event,
  respond,
  type Service,
  startEngine,
  startRedis,
  startService,
  stream,
  until,
} from '@llm-gateway/testing';
import { type Gateway, post } from './gateway.ts';
import { allSettled, type Disaggregation, flagsOf, halves, paramsOf, startPdGateway } from './pd.ts';

/** Many reports of its load by an ingress to its routers. */
const loadReportedMs = 500;

for (const protocol of ['vllm-kvt', 'vllm-mooncake'] as const) {
  describe(`instances of one role each, ${protocol} staged`, () => {
    const disaggregation: Disaggregation = { protocol, staged: true };
    let stack: AsyncDisposableStack;
    let prefill: Engine;
    let decodes: Engine[];
    let fallback: Engine;
    let registrars: Service[];
    let gateway: Gateway;
    /** An ingress of the same flags, which has nowhere else to send requests. */
    let bare: Service;
    /**
     * Requests whose prompt names a gate wait there: a prefill before its answer, a decode within
     * it.
     */
    const gates = new Map<string, PromiseWithResolvers<void>>();
    const gate = (name: string) => {
      const opened = Promise.withResolvers<void>();
      gates.set(name, opened);
      return opened;
    };
    const passed = (half: string, prompt: string) => gates.get(`${half} ${prompt}`)?.promise;

    before(async () => {
      stack = new AsyncDisposableStack();
      const redis = stack.use(await startRedis());
      const script = halves({
        prefill: (request): Answer => {
          const { prompt } = request.json() as { prompt: string };
          return async (reply) => {
            await passed('prefill', prompt);
            await respond(200, { kv_transfer_params: { of: prompt } })(reply);
          };
        },
        decode: (request): Answer => {
          const { prompt } = request.json() as { prompt: string };
          return async (reply) => {
            reply.head(200, { 'content-type': 'text/event-stream' });
            await reply.write(event({ prompt }));
            await passed('decode', prompt);
            await reply.write(event('[DONE]'));
            reply.end();
          };
        },
      });
      const engine = async () => stack.use(await startEngine(script));
      [prefill, decodes] = await Promise.all([engine(), Promise.all([engine(), engine()])]);
      fallback = stack.use(await startEngine(() => stream([event('fallback')])));

      const store = [
        ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
        ...['--discovery-redis-refresh-interval-ms', '100'],
      ];
      const register = async (name: string, role: string, { port }: Engine) =>
        stack.use(
          await startService('registrar', [
            ...['--pod-name', name, '--instance-type', role, '--entrypoint-ip', '127.0.0.1'],
            ...['--entrypoint-port', String(port), '--kv-transfer-ip', '10.7.7.7', '--kv-transfer-port', '4242'],
            ...['--heartbeat-interval-ms', '500', ...store],
          ]),
        );
      const routes = [
        { base_url: 'local', prefix: '*' },
        { base_url: fallback.url, fallback: true },
      ];
      const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
      registrars = await allSettled([
        register('p', 'prefill', prefill),
        ...decodes.map((decode, at) => register(`d${at}`, 'decode', decode)),
      ]);
      gateway = stack.use(
        await startPdGateway(disaggregation, {
          flags: { discovery: store, router: [...routing, '--scheduling-policy', 'load-balance'], ingress: routing },
        }),
      );
      const nats = ['--nats-servers', gateway.nats.url];
      bare = stack.use(await startService('ingress', [...nats, ...flagsOf(disaggregation)]));
    });
    after(() => stack.disposeAsync());

    const ask = (prompt: string) =>
      post(gateway.url, JSON.stringify({ prompt, stream: true }), { path: '/v1/completions' });
    const has = (engine: Engine | undefined, prompt: string) =>
      engine?.requests.some((request) => request.method === 'POST' && request.body.includes(`"${prompt}"`));
    const decoderOf = (prompt: string) => until(() => decodes.find((engine) => has(engine, prompt)));

    it("says where the prefill's cache lies, and is one engine's half each", async () => {
      assert.match(await (await ask('plain')).text(), /\[DONE\]\n\n$/);
      const decode = await decoderOf('plain');
      assert.deepEqual(
        paramsOf(decode.requests.findLast(({ method }) => method === 'POST')),
        protocol === 'vllm-kvt'
          ? { do_remote_prefill: true, remote_host: '10.7.7.7', remote_port: 4242 }
          : { of: 'plain' },
      );
      assert.ok(has(prefill, 'plain'));
    });

    it('decodes where the load is least when the prefill has ended, not when it began', async () => {
      const endOfFirst = gate('decode first');
      const endOfPrefill = gate('prefill held');
      const endOfOther = gate('decode other');
      const first = await ask('first');
      const atFirst = await decoderOf('first');
      const held = ask('held');
      await until(() => has(prefill, 'held'));
      await sleep(loadReportedMs);
      // While the first is busy the other is the one to choose …
      const other = await ask('other');
      const atOther = await decoderOf('other');
      assert.notEqual(atOther, atFirst);
      // … and when the prefill ends it is the other way round.
      endOfFirst.resolve();
      await first.text();
      await sleep(loadReportedMs);
      endOfPrefill.resolve();
      await (await held).text();
      assert.equal(await decoderOf('held'), atFirst);
      endOfOther.resolve();
      await other.text();
    });

    it('goes to the fallback when the last decode instance leaves during the prefill, and is not ready without one', async () => {
      assert.ok(await bare.ready());
      const endOfPrefill = gate('prefill orphan');
      const orphan = ask('orphan');
      await until(() => has(prefill, 'orphan'));
      await Promise.all(registrars.slice(1).map((registrar) => registrar.stop()));
      const completePairs = async () =>
        (await Promise.all([...gateway.ingress, bare].map((ingress) => ingress.metrics()))).map((metrics) =>
          metrics.value('llm_gateway_complete_pair'),
        );
      await until(async () => (await completePairs()).every((value) => value === 0));
      await until(async () => !(await gateway.router[0]?.ready()));
      assert.ok(!(await bare.ready()));
      assert.ok(await gateway.ingress[0]?.ready(), 'there is a fallback');
      endOfPrefill.resolve();
      assert.equal(await (await orphan).text(), event('fallback'));

      // Nothing is prefilled that could not be decoded.
      assert.equal(await (await ask('later')).text(), event('fallback'));
      assert.ok(!has(prefill, 'later'));
      const alone = await post(bare.url, '{"prompt":"alone"}', { path: '/v1/completions' });
      assert.equal(alone.status, 503);
      assert.equal(((await alone.json()) as { error: { code: string } }).error.code, 'no_instance');
    });
  });
}
