import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import {
  type Answer,
  cut,
  type Engine,
  type EngineRequest,
  event,
  refuse,
  respond,
  stall,
  startEngine,
  stream,
  until,
} from '@llm-gateway/testing';
import { type Gateway, post } from './gateway.ts';
import { disaggregations, halves, isPrefill, paramsOf, startPdGateway, titleOf } from './pd.ts';

const events = [event({ choices: [{ text: 'a' }] }), event('[DONE]')];
const client = '{"model": "m", "prompt":"x", "stream":true,"kv_transfer_params":{"remote_host":"10.9.9.9"}}';

/** Ways to fail before anything reached the client. */
const failures: Readonly<Record<string, Answer>> = {
  'answers 500': refuse(500),
  'breaks the connection': cut('before-head', { how: 'reset' }),
  'ends its answer early': cut({ afterBytes: 0 }, { headers: { 'content-length': 10 }, body: '0123456789' }),
};

/** Of a static endpoint. */
function kvAddress(engine: Engine | undefined): object {
  return { remote_host: '127.0.0.1', remote_port: 20_000 + (engine?.port ?? 0) };
}

/** What arrives of an answer that has no proper end. */
async function readUntilBroken(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  await assert.rejects(async () => {
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true });
  });
  return text;
}

type Half = 'prefill' | 'decode';

for (const disaggregation of disaggregations) {
  describe(`a failure with ${titleOf(disaggregation)}`, () => {
    const { protocol, staged } = disaggregation;
    /**
     * The calls of an attempt that goes well; of the protocol that leaves the prefill to the decode
     * engine, one.
     */
    const attempt = protocol === 'vllm-kvt' && !staged ? (['decode'] as const) : (['prefill', 'decode'] as const);
    const upTo = (half: Half) => attempt.slice(0, [...attempt].indexOf(half) + 1);
    let stack: AsyncDisposableStack;
    let engines: Engine[];
    let fallback: Engine;
    let gateway: Gateway;
    /**
     * What the next calls of each half are answered, whichever engine they reach; then it goes
     * well.
     */
    const next = { prefill: [] as Answer[], decode: [] as Answer[] };
    /** Names the prefill in what it hands over. */
    const prefilled = (request: EngineRequest) =>
      respond(200, `{"kv_transfer_params":{"remote_request_id":"${request.headers['x-request-id']}"}}`);

    before(async () => {
      stack = new AsyncDisposableStack();
      const script = halves({
        prefill: (request) => next.prefill.shift() ?? prefilled(request),
        decode: () => next.decode.shift() ?? stream(events),
      });
      engines = await Promise.all([1, 2, 3].map(async () => stack.use(await startEngine(script))));
      fallback = stack.use(await startEngine(() => respond(200, 'from the fallback')));
      const routes = [
        { base_url: 'local', prefix: '*' },
        { base_url: fallback.url, fallback: true },
      ];
      const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
      gateway = stack.use(
        await startPdGateway(disaggregation, {
          engines,
          flags: { router: routing, ingress: [...routing, '--retry-max-count', '1', '--expose-route-headers'] },
        }),
      );
    });
    after(() => stack.disposeAsync());
    afterEach(async () => {
      // What a failed test left must not fail those after it.
      const left = { prefill: next.prefill.splice(0), decode: next.decode.splice(0) };
      assert.deepEqual(left, { prefill: [], decode: [] });
      await until(() => [...engines, fallback].every((engine) => engine.live === 0), { what: 'no engine is at work' });
    });

    /** Sends one request; tells of its calls in their order. */
    const ask = (signal?: AbortSignal) => {
      const seen = [...engines, fallback].map((engine) => engine.requests.length);
      const id = randomUUID();
      const calls = () =>
        [...engines, fallback]
          .flatMap((engine, at) => engine.requests.slice(seen[at]).map((request) => ({ engine, request })))
          .sort((a, b) => a.request.receivedAt - b.request.receivedAt);
      const response = post(gateway.url, client, {
        path: '/v1/completions',
        headers: { 'x-request-id': id },
        ...(signal && { signal }),
      });
      return { id, calls, response };
    };
    type Call = ReturnType<ReturnType<typeof ask>['calls']>[number];

    const kinds = (calls: readonly Call[]) =>
      calls
        .map(({ engine, request }) => (engine === fallback ? 'fallback' : isPrefill(request) ? 'prefill' : 'decode'))
        .join();
    const idOf = (call: Call | undefined) => String(call?.request.headers['x-request-id']);
    const counter = async (name: string, labels = {}) =>
      (await gateway.ingress[0]?.metrics())?.value(name, labels) ?? 0;

    for (const [what, answer] of attempt.length === 1 ? [] : Object.entries(failures)) {
      it(`begins again elsewhere, under another id, when a prefill ${what}`, async () => {
        next.prefill.push(answer);
        const { id, calls, response } = ask();
        const answered = await response;
        assert.equal(await answered.text(), events.join(''));
        assert.equal(answered.headers.get('x-request-id'), id);
        assert.equal(answered.headers.get('x-gateway-attempts'), '2');
        const [first, second, decode] = calls();
        assert.equal(kinds(calls()), 'prefill,prefill,decode');
        assert.notEqual(first?.engine, second?.engine);
        assert.deepEqual(first?.request.body, second?.request.body);
        assert.deepEqual([idOf(first), idOf(decode)], [id, idOf(second)]);
        assert.ok(!idOf(second).startsWith(id) && !id.startsWith(idOf(second)), idOf(second));
      });
    }

    for (const [what, answer] of Object.entries(failures)) {
      it(`begins from the beginning, with nothing of the first attempt, when a decode ${what}`, async () => {
        next.decode.push(answer);
        const { id, calls, response } = ask();
        const answered = await response;
        assert.equal(await answered.text(), events.join(''));
        assert.equal(answered.headers.get('x-gateway-attempts'), '2');
        assert.equal(kinds(calls()), [...attempt, ...attempt].join());
        const first = calls().slice(0, attempt.length);
        const second = calls().slice(attempt.length);
        assert.notEqual(first.at(-1)?.engine, second.at(-1)?.engine);
        assert.deepEqual(new Set(first.map(idOf)), new Set([id]));
        assert.deepEqual(new Set(second.map(idOf)), new Set([idOf(second[0])]));
        assert.notEqual(idOf(second[0]), id);
        if (attempt.length > 1) assert.deepEqual(first[0]?.request.body, second[0]?.request.body);
        const params = paramsOf(second.at(-1)?.request);
        if (protocol === 'vllm-mooncake') assert.deepEqual(params, { remote_request_id: idOf(second[0]) });
        else if (staged) assert.deepEqual(params, { do_remote_prefill: true, ...kvAddress(second[0]?.engine) });
        // Either may have failed.
        else assert.notDeepEqual(params, paramsOf(first[0]?.request));
      });
    }

    for (const half of attempt) {
      it(`goes to the fallback with the client's own bytes when every ${half} fails`, async () => {
        next[half].push(refuse(500), refuse(503));
        const { id, calls, response } = ask();
        const answered = await response;
        assert.equal(await answered.text(), 'from the fallback');
        assert.equal(answered.headers.get('x-gateway-attempts'), '3');
        assert.equal(kinds(calls()), [...upTo(half), ...upTo(half), 'fallback'].join());
        const last = calls().at(-1);
        assert.equal(last?.request.body.toString(), client);
        assert.equal(idOf(last), id);
      });

      it(`gives the client a ${half}'s own 4xx as it is`, async () => {
        next[half].push(respond(422, '{"error":\n{"message":"no"}}', { headers: { 'x-engine': 'e' } }));
        const { calls, response } = ask();
        const answered = await response;
        assert.equal(answered.status, 422);
        assert.equal(await answered.text(), '{"error":\n{"message":"no"}}');
        assert.equal(answered.headers.get('x-engine'), 'e');
        assert.equal(answered.headers.get('x-gateway-attempts'), '1');
        assert.equal(kinds(calls()), upTo(half).join());
      });

      it(`takes a ${half}'s 429 for a failure that is not tried again inside`, async () => {
        next[half].push(refuse(429));
        const { calls, response } = ask();
        assert.equal(await (await response).text(), 'from the fallback');
        assert.equal(kinds(calls()), [...upTo(half), 'fallback'].join());
      });
    }

    it('tries nothing again once the client has a part of the answer', async () => {
      const [first = ''] = events;
      next.decode.push(cut({ afterBytes: first.length }, { body: first, how: 'reset' }));
      const { calls, response } = ask();
      const received = await readUntilBroken(await response);
      assert.ok(received.startsWith(first));
      assert.match(received, /data: \{"error":\{[^\n]*\}\}\n\n$/);
      assert.equal(kinds(calls()), attempt.join());
    });

    for (const [when, half, answer, phase] of [
      ['before a prefill answers', 'prefill', stall('before-head'), 'prefilling'],
      ['within the answer of a prefill', 'prefill', stall({ afterBytes: 1 }, { body: '{}' }), 'prefilling'],
      ['before a decode answers', 'decode', stall('before-head'), 'calling'],
      ['within the answer of a decode', 'decode', stall({ afterBytes: 4 }, { body: 'data' }), 'streaming'],
    ] as const) {
      if (upTo(half).length === 0) continue;
      it(`frees the engine when the client leaves ${when}, and calls no other`, async () => {
        next[half].push(answer);
        const cancelled = () => counter('llm_gateway_cancellations_total', { phase });
        const before = await cancelled();
        const controller = new AbortController();
        const { calls, response } = ask(controller.signal);
        const expected = upTo(half).join();
        // The kind of a call is known when its body is there.
        await until(() => calls().length === upTo(half).length && kinds(calls()) === expected);
        if (phase === 'streaming') await (await response).body?.getReader().read();
        controller.abort();
        await response.catch(() => {});
        const request = calls().at(-1)?.request;
        await until(() => request?.abandoned);
        await until(async () => (await cancelled()) === before + 1);
        assert.equal(kinds(calls()), expected);
      });
    }

    if (protocol !== 'vllm-mooncake') return;
    it('serves, counts and logs a request whose prefill hands nothing over', async () => {
      const missing = () => counter('llm_gateway_kv_transfer_params_missing_total');
      const before = await missing();
      const answers = ['{"id":"p"}', '{"kv_transfer_params":null}', '{"kv_transfer_params":{ }}', 'not JSON', ''];
      for (const answer of answers) {
        next.prefill.push(respond(200, answer));
        const { id, calls, response } = ask();
        assert.equal(await (await response).text(), events.join(''));
        assert.equal(calls().at(-1)?.request.body.toString(), '{"model": "m", "prompt":"x", "stream":true}');
        const told = () => gateway.ingress[0]?.logs().some((line) => line.level === 'warn' && line.requestId === id);
        await until(told, { what: 'a log line' });
      }
      assert.equal((await missing()) - before, answers.length);
    });
  });
}
