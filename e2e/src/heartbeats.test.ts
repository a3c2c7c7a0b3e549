import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  completion,
  cut,
  type Engine,
  type Answer as EngineAnswer,
  event,
  refuse,
  respond,
  type Service,
  startEngine,
  startService,
  stream,
} from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { talk } from './raw-client.ts';

const beat = ': heartbeat\n\n';
const role = event({ choices: [{ index: 0, delta: { role: 'assistant', content: '' } }] });
const hello = event({ choices: [{ index: 0, delta: { content: 'Hello' } }] });
const done = event('[DONE]');

/** An answer that comes after so long a silence. */
function later(answer: EngineAnswer, ms = 250): EngineAnswer {
  return async (reply) => {
    await reply.delay(ms);
    await answer(reply);
  };
}

describe('heartbeats', { concurrency: false, timeout: 60_000 }, () => {
  let engine: Engine;
  let gateway: Service;
  let quiet: Service;
  before(async () => {
    engine = await startEngine();
    const endpoints = ['--llm-backend-endpoints', engine.address];
    [gateway, quiet] = await Promise.all([
      startService('standalone', [...endpoints, '--heartbeat-interval-ms', '50', '--retry-max-count', '1']),
      startService('standalone', endpoints),
    ]);
  });
  after(async () => {
    await Promise.all([gateway.stop(), quiet.stop()]);
    await engine[Symbol.asyncDispose]();
  });

  it('are comments in front of a stream that comes late, which is otherwise what it was', async () => {
    engine.script = () => later(stream([role, hello, done]));
    const answer = await ask(gateway.url, { stream: true, headers: { 'accept-encoding': 'gzip' } });
    assert.equal(answer.status, 200);
    assert.ok(answer.whole);
    assert.ok(answer.text.startsWith(`${beat}${beat}`), answer.text);
    assert.equal(answer.text.replaceAll(beat, ''), `${role}${hello}${done}`);
    assert.match(answer.headers.get('content-type') ?? '', /^text\/event-stream/);
    assert.equal(answer.headers.get('x-accel-buffering'), 'no');
    assert.ok(answer.headers.get('x-request-id'));
    assert.equal(engine.requests.at(-1)?.headers['accept-encoding'], 'identity');
  });

  it('commit nothing: an upstream that fails after them is replaced', async () => {
    let calls = 0;
    engine.script = () =>
      ++calls === 1 ? later(cut({ afterBytes: role.length }, { body: role })) : stream([role, hello, done]);
    const answer = await ask(gateway.url, { stream: true });
    assert.ok(answer.text.startsWith(beat) && answer.whole);
    assert.equal(answer.text.replaceAll(beat, ''), `${role}${hello}${done}`);
    assert.equal(calls, 2);
  });

  it('are followed by a failure in the shape of the API, and no proper end', async () => {
    const tell = async (path: string, script: EngineAnswer) => {
      engine.script = () => later(script);
      const answer = await ask(gateway.url, { stream: true, path });
      assert.equal(answer.status, 200, path);
      assert.ok(!answer.whole && answer.text.startsWith(beat), answer.text);
      const told = answer.text.replaceAll(beat, '');
      const data = JSON.parse(told.slice(told.indexOf('data: ') + 'data: '.length));
      return { name: /^event: (.*)$/m.exec(told)?.[1], data };
    };
    const limited = { message: 'slow down', type: 'rate_limit_error', param: null, code: null };
    assert.deepEqual(await tell('/v1/chat/completions', refuse(429, { message: 'slow down' })), {
      name: undefined,
      data: { error: limited },
    });
    const own = await tell('/v1/chat/completions', cut('before-head'));
    assert.equal(own.data.error.code, 'upstream_failed');
    const mistaken = await tell('/v1/completions', refuse(400, { message: 'mistaken' }));
    assert.equal(mistaken.data.error.message, 'mistaken');
    const unlike = await tell('/v1/chat/completions', respond(200, { id: 'no stream' }));
    assert.equal(unlike.data.error.code, 'upstream_failed');
    const large = await tell('/v1/chat/completions', respond(500, { error: { message: 'x'.repeat(100_000) } }));
    assert.equal(large.data.error.code, 'upstream_failed');
    const overloaded = { type: 'error', error: { type: 'overloaded_error', message: 'busy' } };
    assert.deepEqual(await tell('/v1/messages', respond(529, overloaded)), { name: 'error', data: overloaded });
    const tooLong = 'the context length is 4096';
    const vllm = { error: { message: tooLong, type: 'BadRequestError', code: 400 } };
    assert.deepEqual(await tell('/v1/messages', respond(400, vllm)), {
      name: 'error',
      data: { type: 'error', error: { type: 'invalid_request_error', message: tooLong } },
    });
    const text = respond(429, 'slow down', { headers: { 'content-type': 'text/plain' } });
    assert.equal((await tell('/v1/messages', text)).data.error.type, 'rate_limit_error');
    for (const status of [410, 500]) {
      const zipped = respond(status, 'zzzz', { headers: { 'content-encoding': 'gzip' } });
      const { data } = await tell('/v1/chat/completions', zipped);
      assert.equal(data.error.message, `the upstream answered ${status}`);
    }
    const invalid = await tell('/v1/chat/completions', respond(422, { detail: tooLong }));
    assert.deepEqual([invalid.data.error.type, invalid.data.error.message], ['invalid_request_error', tooLong]);
    const response = await tell('/v1/responses', refuse(500, { message: 'broken' }));
    assert.deepEqual([response.name, response.data.type, response.data.message], ['error', 'error', 'broken']);
    const metrics = await gateway.metrics();
    assert.equal(metrics.value('llm_gateway_requests_total', { status: '429' }), 2, 'what became of it is counted');
  });

  it('leave an answer in one piece alone', async () => {
    engine.script = () => later(refuse(500));
    assert.equal((await ask(gateway.url)).status, 500);
    engine.script = () => later(completion());
    const answer = await ask(gateway.url);
    assert.equal(JSON.parse(answer.text).choices[0].message.content, 'Hello world');
  });

  it('come between events and never within one', async () => {
    engine.script = () => async (reply) => {
      reply.head(200, {
        'content-type': 'text/event-stream',
        'cache-control': 'no-store',
        'x-accel-buffering': 'yes',
      });
      await reply.write(hello);
      await reply.delay(250);
      await reply.write(hello.slice(0, 20));
      await reply.delay(250);
      await reply.write(hello.slice(20));
      await reply.write(done);
      reply.end();
    };
    const { text, whole, headers } = await ask(gateway.url, { stream: true });
    assert.ok(whole);
    assert.match(text, /^data: [^\n]*\n\n(?:: heartbeat\n\n)+data: [^\n]*\n\ndata: \[DONE\]\n\n$/);
    assert.equal(text.replaceAll(beat, ''), `${hello}${hello}${done}`);
    assert.deepEqual([headers.get('cache-control'), headers.get('x-accel-buffering')], ['no-store', 'yes']);
  });

  it('reach a client of HTTP/1.0', async () => {
    engine.script = () => later(stream([hello, done]));
    const body = '{"model":"m","stream":true}';
    const { received } = await talk(
      gateway.url,
      `POST /v1/chat/completions HTTP/1.0\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    const [head = '', ...rest] = received.split('\r\n\r\n');
    assert.match(head, /^HTTP\/1\.1 200 OK/);
    assert.doesNotMatch(head, /transfer-encoding/);
    assert.equal(rest.join('\r\n\r\n').replaceAll(beat, ''), `${hello}${done}`);
  });

  it('are off when nobody asked for them', async () => {
    engine.script = () => later(stream([hello, done]));
    const { text, headers } = await ask(quiet.url, { stream: true });
    assert.equal(text, `${hello}${done}`);
    assert.deepEqual([headers.get('cache-control'), headers.get('x-accel-buffering')], ['no-cache', 'no']);
    engine.script = () => later(refuse(500));
    assert.equal((await ask(quiet.url, { stream: true })).status, 500);
  });
});
