import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { completion, type Engine, type EngineRequest, refuse, respond, startEngine, until } from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { type Gateway, post, startGateway } from './gateway.ts';
import { isPrefill, startPdGateway } from './pd.ts';

const answered = '{"ok":1}';
/**
 * With what a parser would change: white space, an integer above 2^53, escapes, a field that nobody
 * knows.
 */
const bodyOf = (model: string) =>
  `{ "seed":9007199254740993, "mo\\u0064el" : ${JSON.stringify(model)},\n"x_new":{"model":"kept"},"messages":[{"role":"user","content":"\\u0041 1.0"}]}`;

function engineOf(model: string): Promise<Engine> {
  return startEngine((request: EngineRequest) =>
    request.url === '/v1/models'
      ? respond(200, { object: 'list', data: [{ id: model, object: 'model' }] })
      : respond(200, answered),
  );
}

describe('a row that knows its model by another name', { timeout: 60_000 }, () => {
  const stack = new AsyncDisposableStack();
  let small: Engine;
  let large: Engine;
  let third: Engine;
  let spare: Engine;
  let last: Engine;
  let gateway: Gateway;

  before(async () => {
    const engines = [engineOf('org/small'), engineOf('org/large'), startEngine(), startEngine(), startEngine()];
    const started = (await Promise.all(engines)).map((engine) => stack.use(engine));
    [small, large, third, spare, last] = started as [Engine, Engine, Engine, Engine, Engine];
    last.script = () => respond(200, answered);
    const routes = [
      { base_url: 'local', prefix: 'chat-*', aliases: ['fast'], upstream_model: 'org/large' },
      { base_url: third.url, prefix: 'gpt-*', aliases: ['smart'], upstream_model: 'vendor/gpt' },
      { base_url: 'local', prefix: 'org/*', aliases: ['as-given'] },
      { base_url: spare.url, fallback: true, upstream_model: 'spare-model' },
      { base_url: last.url, fallback: true },
    ];
    const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
    gateway = stack.use(
      await startGateway({
        engines: [small, large],
        with: ['retry-worker'],
        flags: {
          discovery: ['--instance-models-interval-ms', '200'],
          router: routing,
          ingress: [...routing, '--fallback-retry-queue-enabled'],
          'retry-worker': [...routing, '--fallback-retry-init-delay-ms', '20'],
        },
      }),
    );
    const served = async (model: string) => (await post(gateway.url, bodyOf(model))).status === 200;
    await until(async () => (await served('org/small')) && (await served('org/large')), { what: 'models are known' });
  });
  after(() => stack.disposeAsync());

  /** The bodies that an engine got for the request. */
  const got = (engine: Engine, id: string) =>
    engine.requests.filter(({ headers }) => headers['x-request-id'] === id).map(({ body }) => body.toString());

  it('gives it to the instances that serve that name, with every other byte as it was', async () => {
    for (const model of ['fast', 'chat-1', 'fast', 'chat-2']) {
      const id = `local-${model}`;
      assert.equal((await ask(gateway.url, { id, body: bodyOf(model) })).text, answered);
      assert.equal(got(large, id).at(-1), bodyOf('org/large'));
      assert.deepEqual(got(small, id), []);
    }
    const filler = 'x'.repeat(40_000);
    const big = (model: string) => `{"model":"${model}","prompt":"${filler}"}`;
    await ask(gateway.url, { id: 'big', body: big('fast') });
    assert.deepEqual(got(large, 'big'), [big('org/large')]);
    await ask(gateway.url, { id: 'same', body: bodyOf('org/small') });
    assert.deepEqual(got(small, 'same'), [bodyOf('org/small')]);
  });

  it('gives it to endpoints; one that fails leaves the name of the next to the next', async () => {
    third.script = () => respond(200, answered);
    for (const model of ['gpt-9', 'smart']) {
      await ask(gateway.url, { id: `third-${model}`, body: bodyOf(model) });
      assert.deepEqual(got(third, `third-${model}`), [bodyOf('vendor/gpt')]);
    }
    third.script = () => refuse(500);
    spare.script = () => refuse(503);
    assert.equal((await ask(gateway.url, { id: 'chain', body: bodyOf('smart') })).text, answered);
    assert.deepEqual(got(spare, 'chain'), [bodyOf('spare-model')]);
    assert.deepEqual(got(last, 'chain'), [bodyOf('smart')]);
  });

  it('gives it to a retry worker with the job', async () => {
    let calls = 0;
    third.script = () => refuse(500);
    spare.script = () => (calls++ === 0 ? refuse(429) : respond(200, answered));
    assert.equal((await ask(gateway.url, { id: 'job', body: bodyOf('smart') })).text, answered);
    assert.deepEqual(got(spare, 'job'), [bodyOf('spare-model'), bodyOf('spare-model')]);
    assert.deepEqual(got(last, 'job'), []);
  });

  it('gives it to forms, in the bytes of their part', async () => {
    third.script = () => respond(200, answered);
    const form = (model: string) =>
      `--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n${model}\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nmodel\r\n--b--\r\n`;
    const headers = { 'content-type': 'multipart/form-data; boundary=b' };
    const path = '/v1/audio/transcriptions';
    await ask(gateway.url, { id: 'form', body: form('smart'), path, headers });
    assert.deepEqual(got(third, 'form'), [form('vendor/gpt')]);
  });

  it('may have aliases alone: the name goes on as it came, and those that are served are listed', async () => {
    const answer = await ask(gateway.url, { id: 'alias', body: bodyOf('as-given') });
    assert.equal(answer.text, answered);
    assert.deepEqual([...got(small, 'alias'), ...got(large, 'alias')], [bodyOf('as-given')]);
    const list = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    assert.deepEqual(
      list.data.map(({ id }) => id),
      ['fast', 'org/large', 'org/small', 'smart'],
    );
  });
});

describe('a local row with another name, for a prefill and its decode', { timeout: 60_000 }, () => {
  it('gives it to both', async () => {
    await using engine = await startEngine((request: EngineRequest) =>
      isPrefill(request) ? respond(200, { kv_transfer_params: { remote_host: 'p' } }) : completion(),
    );
    const routes = [{ base_url: 'local', prefix: '*', upstream_model: 'org/large' }];
    const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
    await using gateway = await startPdGateway(
      { protocol: 'vllm-mooncake', staged: true },
      {
        engines: [engine],
        flags: { router: routing, ingress: routing, discovery: ['--instance-models-interval-ms', '0'] },
      },
    );
    const chat = () => engine.requests.filter(({ url }) => url === '/v1/chat/completions');
    await until(async () => (await post(gateway.url, bodyOf('fast'))).status === 200, { what: 'a request is served' });
    assert.deepEqual(
      chat()
        .slice(-2)
        .map((request) => [isPrefill(request), (request.json() as { model: string }).model]),
      [
        [true, 'org/large'],
        [false, 'org/large'],
      ],
    );
    assert.ok(
      chat().every(({ body }) => body.includes('"seed":9007199254740993,') && body.includes('{"model":"kept"}')),
    );
  });
});
