import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { type Answer, type Engine, raw, respond, stall, startEngine } from '@llm-gateway/testing';
import { type Gateway, post } from './gateway.ts';
import { disaggregations, halves, isPrefill, paramsOf, startPdGateway, titleOf } from './pd.ts';

const timeoutMs = 700;
const prefilled = respond(200, '{"kv_transfer_params":{"a":1}}');
/** More than the gateway keeps of a prefill's answer; its parameters are at the end. */
const large = respond(200, `{"prompt_logprobs":"${'x'.repeat(17 * 2 ** 20)}","kv_transfer_params":{"a":1}}`);

/** An answer that ends before its body does. */
const cutBody = (status: number) =>
  raw(
    `HTTP/1.1 ${status} No\r\ncontent-type: application/json\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n{"error":`,
  );

for (const disaggregation of disaggregations) {
  // It has no call of a prefill.
  if (disaggregation.protocol === 'vllm-kvt' && !disaggregation.staged) continue;

  describe(`the call of a prefill with ${titleOf(disaggregation)}`, () => {
    let stack: AsyncDisposableStack;
    let engines: Engine[];
    let gateway: Gateway;
    const next: Answer[] = [];

    before(async () => {
      stack = new AsyncDisposableStack();
      const script = halves({ prefill: () => next.shift() ?? prefilled, decode: () => respond(200, '{"ok":1}') });
      engines = await Promise.all([1, 2, 3].map(async () => stack.use(await startEngine(script))));
      const timeouts = ['headers', 'idle'].flatMap((kind) => [`--upstream-${kind}-timeout-ms`, String(timeoutMs)]);
      gateway = stack.use(
        await startPdGateway(disaggregation, { engines, flags: { ingress: [...timeouts, '--retry-max-count', '1'] } }),
      );
    });
    after(() => stack.disposeAsync());
    afterEach(() => assert.deepEqual(next, []));

    /** Sends one request; tells of its answer and its calls in their order. */
    const ask = async () => {
      const seen = engines.map(({ requests }) => requests.length);
      const response = await post(gateway.url, '{"prompt":"x"}', { path: '/v1/completions' });
      const text = await response.text();
      const calls = engines
        .flatMap((engine, at) => engine.requests.slice(seen[at]))
        .sort((a, b) => a.receivedAt - b.receivedAt);
      return { response, text, calls, kinds: calls.map((call) => (isPrefill(call) ? 'prefill' : 'decode')).join() };
    };
    const counter = async (name: string, labels = {}) =>
      (await gateway.ingress[0]?.metrics())?.value(`llm_gateway_${name}`, labels) ?? 0;
    const ejections = async () => (await gateway.router[0]?.metrics())?.value('llm_gateway_router_ejections_total');

    for (const [what, answer] of [
      ['says nothing', stall('before-head')],
      ['falls silent within its answer', stall({ afterBytes: 1 }, { body: '{}' })],
    ] as const) {
      it(`begins again when a prefill ${what}, and tells of a timeout when a second one does too`, async () => {
        next.push(answer);
        const once = await ask();
        assert.equal(once.response.status, 200, once.text);
        assert.equal(once.kinds, 'prefill,prefill,decode');
        next.push(answer, answer);
        const twice = await ask();
        assert.equal(twice.response.status, 504);
        assert.equal((JSON.parse(twice.text) as { error: { code: string } }).error.code, 'upstream_timeout');
        assert.equal(twice.kinds, 'prefill,prefill');
      });
    }

    it('keeps the status of an answer whose body is cut, and takes it for what it says', async () => {
      for (const [status, kinds] of [
        [422, 'prefill'],
        [429, 'prefill'],
        [500, 'prefill,prefill'],
      ] as const) {
        next.push(...kinds.split(',').map(() => cutBody(status)));
        const { response, text, kinds: called } = await ask();
        assert.equal(response.status, status, text);
        assert.equal(text, '');
        assert.equal(response.headers.get('retry-after'), '7');
        assert.equal(response.headers.get('content-type'), null);
        assert.equal(called, kinds);
      }
    });

    it('is content with an answer that is larger than it keeps, and blames no engine', async () => {
      const mooncake = disaggregation.protocol === 'vllm-mooncake';
      const missing = await counter('kv_transfer_params_missing_total');
      const succeeded = await counter('prefill_duration_seconds_count', { outcome: 'succeeded' });
      const before = await ejections();
      for (let asked = 0; asked < 6; asked++) {
        next.push(large);
        const { response, text, calls, kinds } = await ask();
        assert.equal(response.status, 200, text);
        assert.equal(kinds, 'prefill,decode');
        if (mooncake) assert.equal(paramsOf(calls[1]), undefined);
        else assert.equal((paramsOf(calls[1]) as { do_remote_prefill?: boolean }).do_remote_prefill, true);
      }
      assert.equal((await counter('kv_transfer_params_missing_total')) - missing, mooncake ? 6 : 0);
      assert.equal((await counter('prefill_duration_seconds_count', { outcome: 'succeeded' })) - succeeded, 6);
      assert.equal(await ejections(), before);
    });

    it('gives the client an own mistake of its whole, be it a megabyte or two', async () => {
      const said = `{"error":{"message":"no","input":"${'x'.repeat(2 * 2 ** 20)}"}}`;
      next.push(respond(422, said));
      const { response, text, kinds } = await ask();
      assert.equal(response.status, 422);
      assert.ok(text === said);
      assert.equal(kinds, 'prefill');
    });
  });
}
