import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { completion, type Engine, respond, type Service, startEngine, startService } from '@llm-gateway/testing';
import { post } from './gateway.ts';
import { halves, startPdGateway } from './pd.ts';

const message = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'm',
  content: [{ type: 'text', text: 'Hello' }],
  stop_reason: 'end_turn',
  stop_sequence: null,
  usage: { input_tokens: 1, output_tokens: 1 },
};
const asked = { model: 'm', max_tokens: 5, messages: [{ role: 'user' as const, content: 'Hi' }] };

describe('a client of the Messages API', { timeout: 60_000 }, () => {
  const stack = new AsyncDisposableStack();
  let engine: Engine;
  let gateway: Service;
  let client: Anthropic;
  before(async () => {
    engine = stack.use(await startEngine());
    const flags = [
      '--llm-backend-endpoints',
      engine.address,
      '--max-concurrent-requests',
      '4',
      '--mirror-config',
      '/nonexistent',
    ];
    gateway = stack.use(await startService('standalone', flags));
    client = new Anthropic({ baseURL: gateway.url, apiKey: 'client-key', maxRetries: 0 });
  });
  after(() => stack.disposeAsync());

  const failure = async (call: () => PromiseLike<unknown>) => {
    try {
      await call();
    } catch (error) {
      assert.ok(error instanceof Anthropic.APIError, String(error));
      return error;
    }
    throw new Error('it did not fail');
  };

  it('is served; its key and version reach the instance', async () => {
    engine.script = () => respond(200, message);
    assert.deepEqual((await client.messages.create(asked)).content, message.content);
    const { headers, url } = engine.requests.at(-1) ?? {};
    assert.equal(url, '/v1/messages');
    assert.equal(headers?.authorization, 'Bearer client-key');
    assert.match(String(headers?.['anthropic-version']), /^20\d\d-\d\d-\d\d$/);
    await post(gateway.url, JSON.stringify(asked), { path: '/v1/messages', headers: { 'x-api-key': 'older' } });
    assert.equal(engine.requests.at(-1)?.headers['x-api-key'], 'older');
    engine.script = () => respond(200, { input_tokens: 7 });
    const { max_tokens: _, ...counted } = asked;
    assert.equal((await client.messages.countTokens(counted)).input_tokens, 7);
    assert.equal(engine.requests.at(-1)?.url, '/v1/messages/count_tokens');
  });

  it('lists models and reads one, in the shape of its API', async () => {
    engine.script = () =>
      respond(200, { object: 'list', data: [{ id: 'org/m', object: 'model', created: 1_700_000_000 }] });
    const expected = { type: 'model', id: 'org/m', display_name: 'org/m', created_at: '2023-11-14T22:13:20.000Z' };
    const { data, has_more: more } = await client.models.list();
    assert.deepEqual([data, more], [[expected], false]);
    assert.deepEqual({ ...(await client.models.retrieve('org/m')) }, expected);
    const error = await failure(() => client.models.retrieve('other'));
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.equal(error.type, 'not_found_error');
  });

  it('is told what went wrong by the status and type of its API, and by which request', async () => {
    engine.script = () => respond(200, message);
    const bad = await failure(() => client.messages.create({ ...asked, model: 7 as never }));
    assert.ok(bad instanceof Anthropic.BadRequestError);
    assert.equal(bad.type, 'invalid_request_error');
    assert.match(bad.requestID ?? '', /^[0-9a-f-]{36}$/);
    assert.equal((bad.error as { request_id: string }).request_id, bad.requestID);

    engine.script = () => async (reply) => await reply.stall();
    const seen = engine.requests.length;
    const left = new AbortController();
    const held = Array.from({ length: 4 }, () =>
      client.messages.create(asked, { signal: left.signal }).catch(() => {}),
    );
    await engine.request(seen + 3);
    const busy = await failure(() => client.messages.create(asked));
    left.abort();
    await Promise.all(held);
    assert.ok(busy instanceof Anthropic.InternalServerError);
    assert.deepEqual([busy.status, busy.type, busy.headers?.get('retry-after')], [529, 'overloaded_error', '1']);
  });
});

describe('with a P/D protocol', { timeout: 60_000 }, () => {
  it('the paths that --pd-paths does not name go to a decode instance alone', async () => {
    const answer = halves({
      prefill: () => respond(200, '{"kv_transfer_params":{"remote_engine_id":"e"}}'),
      decode: ({ url }) => (url === '/v1/messages' ? respond(200, message) : completion()),
    });
    await using a = await startEngine(answer);
    await using b = await startEngine(answer);
    const flags = { ingress: ['--pd-paths', '/v1/messages'] };
    await using gateway = await startPdGateway(
      { protocol: 'vllm-mooncake', staged: false },
      { engines: [a, b], flags },
    );
    const calls = async (path: string) => {
      const before = a.requests.length + b.requests.length;
      assert.equal((await post(gateway.url, JSON.stringify(asked), { path })).status, 200);
      return a.requests.length + b.requests.length - before;
    };
    assert.equal(await calls('/v1/messages'), 2);
    assert.equal(await calls('/v1/chat/completions'), 1);
    assert.equal(await calls('/v1/messages/count_tokens'), 1);
  });
});
