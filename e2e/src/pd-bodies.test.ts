import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import {
  type Engine,
  type EngineRequest,
  event,
  respond,
  type Script,
  startEngine,
  stream,
} from '@llm-gateway/testing';
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
  '/v1/completions': '"prompt" : ["one, \\"two\\"\\n"  ]',
} as const;
type Path = keyof typeof prompts;

/**
 * White space, an integer above 2^53, a repeated field, numbers and escapes that no writer of JSON
 * would choose: all of it is to arrive.
 */
const written = (path: Path, { stream, limits, params }: Fields) =>
  `{ "model" : "m",\r\n\t"seed": 9007199254740993, "x":1.0,"x":2e0,${prompts[path]},"stream" :${stream},${limits}, "user":"\\u0041\\/"${params} }`;

const clientLimits =
  '"max_tokens":100, "max_completion_tokens" : 90,"min_tokens":7,"n": 1, "stop" : ["x"],"stop_token_ids":[2]';
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
    const callsOf = (path: Path, fields: Fields) => callsFor(path, written(path, fields));

    const callsFor = async (path: Path, sent: string) => {
      const seen = engines.map((engine) => engine.requests.length);
      const id = randomUUID();
      const response = await post(gateway.url, sent, { path, headers: { 'x-request-id': id } });
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

    /** Another script for both engines until it is disposed. */
    const scripted = (script: Script): Disposable => {
      const usual = engines.map((engine) => engine.script);
      for (const engine of engines) engine.script = script;
      return {
        [Symbol.dispose]() {
          for (const [at, engine] of engines.entries()) engine.script = usual[at] ?? script;
        },
      };
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
              written(path, {
                stream: 'false',
                limits: prefillLimits,
                params: own
                  ? `${params(expected.prefill)},"ignore_eos":true`
                  : `,"ignore_eos":true${params(expected.prefill)}`,
              }),
            );
            assert.ok(
              (prefill?.request.answeredAt ?? Infinity) <= (decode?.request.receivedAt ?? 0),
              'one after the other',
            );
          });
        }
      }
    }

    const unsplit: [reason: string, path: Path, sent: string][] = [
      ['prompts', '/v1/completions', '{"model":"m","prompt":[ "a", "b"]}'],
      ['prompts', '/v1/completions', '{"model":"m","prompt":[[1,2],[3]],"stream":true}'],
      ['n', '/v1/chat/completions', '{"model":"m","messages":[],"n":2}'],
      ['best_of', '/v1/completions', '{"model":"m","prompt":"a","best_of":3}'],
      ['beam_search', '/v1/chat/completions', '{"model":"m","messages":[],"use_beam_search":true}'],
    ];
    it('leaves a request whole that cannot be split: one engine gets it without kv_transfer_params, and it is counted', async () => {
      const counted = async () => {
        const metrics = await gateway.ingress[0]?.metrics();
        return unsplit.map(([reason]) => metrics?.value('llm_gateway_requests_not_split_total', { reason }) ?? 0);
      };
      for (const [reason, path, sent] of unsplit) {
        for (const own of ['', ',"kv_transfer_params":{"remote_host":"10.9.9.9"}']) {
          const text = `${sent.slice(0, -1)}${own}}`;
          const { calls } = await callsFor(path, text);
          assert.deepEqual(calls.map(body), [sent], reason);
        }
      }
      assert.deepEqual(await counted(), [4, 4, 2, 2, 2]);
    });

    it('forces no tool call of the prefill, and the decode is asked as the client asked', async () => {
      const tools = '"tools":[{"type":"function","function":{"name":"f"}}]';
      for (const choice of ['"required"', '{"type":"function","function":{"name":"f"}}']) {
        const { calls } = await callsFor(
          '/v1/chat/completions',
          `{"model":"m",${tools},"tool_choice":${choice},"messages":[]}`,
        );
        for (const call of calls) assert.ok(body(call)?.includes(tools));
        assert.ok(body(calls.at(-1))?.includes(`"tool_choice":${choice}`));
        if (calls.length === 2) assert.ok(body(calls[0])?.includes('"tool_choice":"none"'));
      }
    });

    it("shows the client the prefill's cached tokens in the usage of the decode", async () => {
      const usage = (count: number) =>
        `"usage":{"prompt_tokens":99,"prompt_tokens_details":{"cached_tokens":${count}}}`;
      const ending = (count: number) => `data: {"choices":[],${usage(count)}}\n\n`;
      const script = halves({
        prefill: () => respond(200, `{"kv_transfer_params": ${answered}, "choices":[],${usage(16)}}`),
        decode: (request) => {
          const { stream: streamed } = request.json() as { stream?: boolean };
          return streamed
            ? stream([...events.slice(0, 1), ending(98), '[DONE]'])
            : respond(200, `{"choices":[], ${usage(98)} }`, { headers: { 'content-type': 'application/json' } });
        },
      });
      using _scripts = scripted(script);
      const count = expectedParams(disaggregation, 0).prefill === null ? 98 : 16;
      const chatted = async (fields: string) =>
        (await callsFor('/v1/chat/completions', `{"model":"m","messages":[]${fields}}`)).text;
      assert.equal(await chatted(''), `{"choices":[], ${usage(count)} }`);
      const asked = await chatted(',"stream":true,"stream_options":{"include_usage":true}');
      assert.equal(asked, `${events[0]}${ending(count)}[DONE]`);
      assert.equal(await chatted(',"stream":true'), `${events[0]}${ending(98)}[DONE]`, 'not asked for');
    });

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

    it('gives requests with one id different ones at the engines while they are under way', async () => {
      const id = randomUUID();
      const seen = engines.map((engine) => engine.requests.length);
      const script = halves({
        prefill: () => respond(200, `{"kv_transfer_params": ${answered}, "choices":[]}`),
        decode: () => respond(200, '{}', { delayMs: 500 }),
      });
      using _scripts = scripted(script);
      const send = async () => {
        const response = await post(gateway.url, '{"model":"m","messages":[]}', { headers: { 'x-request-id': id } });
        assert.deepEqual([response.status, response.headers.get('x-request-id')], [200, id], await response.text());
      };
      await Promise.all([send(), send(), send()]);
      const calls = engines.flatMap((engine, at) => engine.requests.slice(seen[at]));
      const ids = (prefill: boolean) =>
        calls
          .filter((call) => isPrefill(call) === prefill)
          .map(({ headers }) => String(headers['x-request-id']))
          .sort();
      assert.deepEqual(ids(false), [id, `r2-${id}`, `r3-${id}`].sort());
      if (expectedParams(disaggregation, 0).prefill !== null) assert.deepEqual(ids(true), ids(false));
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
