import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { type Engine, type EngineRequest, event, respond, startEngine, stream } from '@llm-gateway/testing';
import { type Gateway, post } from './gateway.ts';
import { type Disaggregation, disaggregations, halves, isPrefill, startPdGateway, titleOf } from './pd.ts';

/** What of a client's body the gateway may change, as it stands in the text. */
interface Fields {
  readonly stream: string;
  readonly limits: string;
  readonly params: string;
}

const prompts = {
  '/v1/chat/completions': '"messages":[ {"role":"user","content":"l\\u00e9 \\"kv_transfer_params\\": 🙂"} ]',
  '/v1/completions': '"prompt" : ["one\\n",  "two"]',
} as const;
type Path = keyof typeof prompts;

/** White space, an integer above 2^53, a repeated field, numbers and escapes that no writer of JSON would choose: all of it is to arrive. */
const written = (path: Path, { stream, limits, params }: Fields) =>
  `{ "model" : "m",\r\n\t"seed": 9007199254740993, "x":1.0,"x":2e0,${prompts[path]},"stream" :${stream},${limits}, "user":"\\u0041\\/"${params} }`;

const clientLimits = '"max_tokens":100, "max_completion_tokens" : 90,"min_tokens":7,"n": 2';
const prefillLimits = '"max_tokens":1, "max_completion_tokens" : 1,"min_tokens":1,"n": 1';

/** With integers that a double cannot hold. */
const answered =
  '{"do_remote_prefill":true, "remote_block_ids":[9007199254740993, 18446744073709551615], "remote_engine_id":"e-1"}';
const events = [event({ choices: [{ delta: { content: 'é' } }] }), event('[DONE]')];

/** The fields of section 10 for each call; null when the call is not made. */
function expectedParams({ protocol, staged }: Disaggregation, prefillPort: number) {
  const remote = `"remote_host":"127.0.0.1","remote_port":${20_000 + prefillPort}`;
  if (protocol === 'vllm-mooncake') {
    const prefill =
      '{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}';
    return { prefill, decode: answered };
  }
  if (staged) return { prefill: '{"do_remote_decode":true}', decode: `{"do_remote_prefill":true,${remote}}` };
  return { prefill: null, decode: `{${remote}}` };
}

for (const disaggregation of disaggregations) {
  describe(titleOf(disaggregation), () => {
    let engines: Engine[];
    let gateway: Gateway;
    before(async () => {
      const script = halves({
        prefill: () => respond(200, `{"id":"p","kv_transfer_params": ${answered}, "choices":[]}`, { delayMs: 20 }),
        decode: (request) => {
          const { stream: streamed } = request.json() as { stream: boolean };
          return streamed ? stream(events) : respond(200, { object: 'whole' });
        },
      });
      engines = await Promise.all([startEngine(script), startEngine(script)]);
      gateway = await startPdGateway(disaggregation, { engines });
    });
    after(async () => {
      await gateway[Symbol.asyncDispose]();
      for (const engine of engines) await engine[Symbol.asyncDispose]();
    });

    /** The engines' calls for one request of a client, in their order. */
    const callsOf = async (path: Path, fields: Fields) => {
      const seen = engines.map((engine) => engine.requests.length);
      const id = randomUUID();
      const response = await post(gateway.url, written(path, fields), { path, headers: { 'x-request-id': id } });
      const text = await response.text();
      assert.equal(response.status, 200, text);
      assert.equal(response.headers.get('x-request-id'), id);
      const calls = engines.flatMap((engine, at) =>
        engine.requests.slice(seen[at]).map((request) => ({ engine, request })),
      );
      calls.sort((a, b) => a.request.receivedAt - b.request.receivedAt);
      for (const { request } of calls) {
        assert.equal(request.url, path);
        assert.equal(request.headers['x-request-id'], id);
        assert.equal(request.headers['content-type'], 'application/json');
      }
      return { calls, text };
    };

    const body = (call: { request: EngineRequest } | undefined) => call?.request.body.toString();

    for (const path of Object.keys(prompts) as Path[]) {
      for (const streamed of [true, false]) {
        for (const own of [true, false]) {
          const what = `${path}, ${streamed ? 'streamed' : 'whole'}, ${own ? 'with' : 'without'} kv_transfer_params of its own`;
          it(`gives each engine the client's bytes with the protocol's fields: ${what}`, async () => {
            // A client's own are replaced where they stand; what it did not send goes to the end.
            const params = (value: string) =>
              own ? `,"kv_transfer\\u005fparams" : ${value} , "z":1` : `,"kv_transfer_params":${value}`;
            const options = streamed ? ',"stream_options":{"include_usage":true}' : '';
            const client = { stream: `${streamed}${options}`, limits: clientLimits };
            const { calls, text } = await callsOf(path, {
              ...client,
              params: own ? params('{"remote_host":"10.9.9.9","remote_port":1}') : '',
            });
            assert.equal(text, streamed ? events.join('') : '{"object":"whole"}');

            const decode = calls.at(-1);
            const other = engines.find((engine) => engine !== decode?.engine);
            const expected = expectedParams(disaggregation, other?.port ?? 0);
            assert.equal(body(decode), written(path, { ...client, params: params(expected.decode) }));
            if (expected.prefill === null) {
              assert.equal(calls.length, 1);
              return;
            }
            const [prefill] = calls;
            assert.equal(calls.length, 2);
            assert.equal(prefill?.engine, other, 'two engines share the work');
            assert.equal(
              body(prefill),
              written(path, { stream: 'false', limits: prefillLimits, params: params(expected.prefill) }),
            );
            assert.ok(
              (prefill?.request.answeredAt ?? Infinity) <= (decode?.request.receivedAt ?? 0),
              'one after the other',
            );
          });
        }
      }
    }

    it('gives both engines the whole of a large prompt', async () => {
      const prompt = 'Say "é" \\ and go on.\n'.repeat(20_000);
      const sent = JSON.stringify({ model: 'm', prompt, stream: false });
      const response = await post(gateway.url, sent, { path: '/v1/completions' });
      assert.equal(response.status, 200, await response.text());
      const calls = engines.flatMap((engine) => engine.requests.filter(({ body }) => body.length >= sent.length));
      assert.equal(calls.length, expectedParams(disaggregation, 0).prefill === null ? 1 : 2);
      for (const call of calls) assert.equal((call.json() as { prompt: string }).prompt, prompt);
    });

    it('uses the connections of both engines again', () => {
      for (const engine of engines) {
        assert.ok(engine.requests.length > 2);
        assert.equal(engine.connectionCount, 1);
      }
    });

    it('leaves other paths whole: one engine gets the bytes of the client', async () => {
      const sent = '{"model":"m", "input":"x","max_tokens":5}';
      const seen = engines.map((engine) => engine.requests.length);
      assert.equal((await post(gateway.url, sent, { path: '/v1/embeddings' })).status, 200);
      const calls = engines.flatMap((engine, at) => engine.requests.slice(seen[at]));
      assert.deepEqual(
        calls.map((request) => request.body.toString()),
        [sent],
      );
    });

    it('counts prefills, and knows that there is a complete pair', async () => {
      const metrics = await gateway.ingress[0]?.metrics();
      const prefills = engines.flatMap((engine) => engine.requests).filter(isPrefill).length;
      assert.equal(metrics?.value('llm_gateway_complete_pair'), 1);
      if (prefills === 0) return;
      assert.equal(metrics?.value('llm_gateway_prefill_duration_seconds_count', { outcome: 'succeeded' }), prefills);
    });

    it('serves the same when no router is left', async () => {
      for (const router of gateway.router) await router.kill();
      const { calls, text } = await callsOf('/v1/completions', { stream: 'true', limits: clientLimits, params: '' });
      assert.equal(text, events.join(''));
      assert.equal(calls.length, expectedParams(disaggregation, 0).prefill === null ? 1 : 2);
    });
  });
}
