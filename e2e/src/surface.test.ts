import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { type Engine, respond, type Service, startEngine, startRedis, startService, until } from '@llm-gateway/testing';
import { chat, post } from './gateway.ts';
import { startPod } from './pods.ts';

const card = { id: 'org/m:tag', object: 'model', created: 1, owned_by: 'vllm', max_model_len: 99 };

describe('what clients other than a chat call ask for', { timeout: 60_000 }, () => {
  const stack = new AsyncDisposableStack();
  let engine: Engine;
  let gateway: Service;
  before(async () => {
    engine = stack.use(await startEngine());
    const flags = [
      '--llm-backend-endpoints',
      engine.address,
      '--drain-delay-ms',
      '1500',
      '--mirror-config',
      '/nonexistent',
    ];
    gateway = stack.use(await startService('standalone', flags));
  });
  after(() => stack.disposeAsync());

  it('is one model, by GET and HEAD, with slashes in its name escaped or not', async () => {
    engine.script = () => respond(200, { object: 'list', data: [card] });
    for (const path of [
      '/v1/models/org/m:tag',
      '/v1/models/org%2Fm%3Atag',
      '/models/org/m:tag',
      '//v1/models/org/m:tag/',
    ]) {
      const answer = await fetch(`${gateway.url}${path}`);
      assert.equal(answer.status, 200, path);
      assert.deepEqual(await answer.json(), card);
      const head = await fetch(`${gateway.url}${path}`, { method: 'HEAD' });
      assert.equal(head.headers.get('content-length'), answer.headers.get('content-length'));
      assert.equal(await head.text(), '');
    }
    const missing = await fetch(`${gateway.url}/v1/models/org/other`);
    assert.equal(missing.status, 404);
    assert.equal(((await missing.json()) as { error: { code: string } }).error.code, 'model_not_found');
    const removal = await fetch(`${gateway.url}/v1/models/org/m:tag`, { method: 'DELETE' });
    assert.equal(removal.status, 405);
    assert.equal(removal.headers.get('allow'), 'GET, HEAD');
  });

  it('is whether it is well, and its version; neither is a request to the log and the metrics', async () => {
    const finished = async () => (await gateway.metrics()).value('llm_gateway_requests_total');
    const before = await finished();
    for (const path of ['/health', '/ping', '/health/', '/version']) {
      for (const method of ['GET', 'HEAD']) {
        const answer = await fetch(`${gateway.url}${path}`, { method });
        assert.equal(answer.status, 200);
        if (method === 'GET') {
          assert.deepEqual(Object.keys((await answer.json()) as object), [path === '/version' ? 'version' : 'status']);
        }
      }
    }
    assert.equal((await fetch(`${gateway.url}/ping`, { method: 'POST', body: '{}' })).status, 200);
    assert.equal((await fetch(`${gateway.url}/health`, { method: 'POST' })).status, 405);
    await until(async () => (await finished()) === before + 1, { what: 'the 405 alone is counted' });
    const lines = () =>
      gateway
        .logs()
        .filter(({ msg, path }) => msg === 'request' && /health|ping|version/.test(String(path)))
        .map(({ path, status }) => `${path} ${status}`);
    await until(() => lines().length > 0, { what: 'its line is written' });
    assert.deepEqual(lines(), ['/health 405']);
  });

  it('is audio and images: the model is read from a form, and no byte of it changes', async () => {
    engine.script = () => respond(200, { text: 'hello' });
    const form = new FormData();
    form.set('file', new File([Buffer.alloc(300_000, 0xff)], 'a.wav', { type: 'audio/wav' }));
    form.set('model', 'whisper');
    const encoded = new Response(form);
    const type = encoded.headers.get('content-type') ?? '';
    const body = Buffer.from(await encoded.arrayBuffer());
    for (const path of [
      '/v1/audio/transcriptions',
      '/v1/audio/translations',
      '/audio/transcriptions',
      '/v1/images/edits',
    ]) {
      const id = path.replaceAll('/', '-');
      const answer = await post(gateway.url, body, { path, headers: { 'content-type': type, 'x-request-id': id } });
      assert.equal(answer.status, 200, path);
      const request = engine.requests.at(-1);
      assert.ok(request?.body.equals(body));
      assert.equal(request?.headers['content-type'], type);
      const line = await until(() => gateway.logs().find(({ requestId }) => requestId === id), {
        what: 'its log line',
      });
      assert.equal(line.model, 'whisper');
    }
    const speech = JSON.stringify({ model: 'tts', input: 'Hello', voice: 'alloy' });
    for (const path of ['/v1/audio/speech', '/v1/images/generations']) {
      assert.equal((await post(gateway.url, speech, { path })).status, 200);
      assert.equal(engine.requests.at(-1)?.body.toString(), speech);
    }
  });

  it('is told when it names no model for audio and images, or sends no valid form', async () => {
    const code = async (body: string, path: string, type: string) => {
      const answer = await post(gateway.url, body, { path, headers: { 'content-type': type } });
      return `${answer.status} ${((await answer.json()) as { error: { code: string } }).error.code}`;
    };
    for (const body of ['{"prompt":"x"}', '{"model":', '']) {
      assert.equal(await code(body, '/v1/images/generations', 'application/json'), '404 model_not_found');
    }
    const { length } = engine.requests;
    const form = 'multipart/form-data; boundary=b';
    const twoNames = '--b\r\nContent-Disposition: form-data; name="x"; name="model"\r\n\r\nm\r\n--b--\r\n';
    const urlencoded = 'application/x-www-form-urlencoded';
    for (const [body, path, type] of [
      ['{}', '/v1/audio/transcriptions', form],
      [twoNames, '/v1/audio/transcriptions', form],
      [twoNames.replace('x"; name="', ''), '/v1/images/edits', `${form}; charset=utf-7`],
      ['{"model":7}', '/v1/audio/speech', 'application/json'],
      ['model=m', '/v1/audio/transcriptions', urlencoded],
      ['{"model":"m"}', '/v1/chat/completions', urlencoded],
    ] as const) {
      assert.equal(await code(body, path, type), '400 invalid_body', `${path} ${type} ${body}`);
    }
    const one = twoNames.replace('x"; name="', '');
    const statusOf = (...lines: string[]) =>
      new Promise<number | undefined>((resolve, reject) => {
        const headers = ['host', 'gateway', 'content-length', String(one.length), ...lines];
        const options = { method: 'POST', agent: false, headers };
        const asked = request(`${gateway.url}/v1/audio/transcriptions`, options, (answer) => {
          answer.resume().once('end', () => resolve(answer.statusCode));
        });
        asked.once('error', reject).end(one);
      });
    const types = ['content-type', form, 'Content-Type', form.replace('=b', '=c')];
    assert.equal(await statusOf(...types), 400, 'two content types');
    // Without it the engine would look for the model elsewhere.
    assert.equal(await statusOf('connection', 'close, content-type', 'content-type', form), 404, 'one that stays here');
    assert.equal(engine.requests.length, length);
    engine.script = () => respond(200, { text: 'hello' });
    assert.equal(await statusOf('connection', 'close', 'content-type', form), 200);
  });

  it('is understood behind any base URL', async () => {
    engine.script = () => respond(200, '{}');
    for (const path of [
      '/chat/completions',
      '//v1/chat/completions',
      '/v1/chat/completions/',
      '/v1/v1/chat/completions?a=%2F',
    ]) {
      assert.equal((await post(gateway.url, chat(), { path })).status, 200);
      assert.equal(engine.requests.at(-1)?.url, `/v1/chat/completions${path.includes('?') ? '?a=%2F' : ''}`);
    }
    assert.equal((await post(gateway.url, chat(), { path: '/v2/chat/completions' })).status, 404);
  });

  it('is told 503 by /health, as by /readyz, from SIGTERM on', async () => {
    const stopped = gateway.stop();
    await until(async () => (await fetch(`${gateway.url}/health`)).status === 503, { what: 'not well' });
    assert.deepEqual(await (await fetch(`${gateway.url}/ping`)).json(), { status: 'draining' });
    await stopped;
  });
});

describe('a model that is not there', { timeout: 60_000 }, () => {
  it('is 404 when nobody has ever served it, 503 when its instances are down', async () => {
    await using redis = await startRedis();
    const store = [
      ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
      ...['--discovery-redis-refresh-interval-ms', '200'],
    ];
    await using base = await startPod('a', [...store, '--model', 'base']);
    await using gone = await startPod('b', [...store, '--model', 'gone']);
    const flags = ['--llm-backend-discovery', 'redis', ...store, '--mirror-config', '/nonexistent'];
    await using gateway = await startService('standalone', flags);
    const ask = async (model: string) => {
      const response = await post(gateway.url, chat({ model }));
      return `${response.status} ${((await response.json()) as { error?: { code: string } }).error?.code}`;
    };
    for (const model of ['base', 'gone']) {
      await until(async () => (await ask(model)) === '200 undefined', { what: `${model} is served` });
    }
    assert.equal(await ask('bsae'), '404 model_not_found');
    await gone.end();
    await until(async () => (await ask('gone')) === '503 no_instance', { what: 'it is not served any more' });
    assert.equal(await ask('bsae'), '404 model_not_found');
    assert.equal(await ask('base'), '200 undefined');
    assert.ok(base.served() > 0);
  });
});
