import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Engine, type EngineRequest, respond, startEngine, until } from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { type Gateway, startGateway } from './gateway.ts';
import { MirrorScene } from './mirror.ts';

/** What clients show of themselves, each with a value that is found wherever it goes. */
const secrets = {
  authorization: 'Bearer secret-1',
  'x-api-key': 'secret-2',
  'api-key': 'secret-3',
  'x-goog-api-key': 'secret-4',
  cookie: 'sid=secret-5',
  'x-acme-token': 'secret-6',
  'openai-organization': 'secret-7',
  'x-functions-key': 'secret-8',
  dpop: 'secret-9',
  'tailscale-user-login': 'secret-10',
};
/** What proxies before the gateway write. */
const way = {
  'cf-connecting-ip': 'way-1',
  'cf-access-jwt-assertion': 'way-2',
  'cdn-loop': 'way-3',
  'x-forwarded-for': '203.0.113.7',
  forwarded: 'for=way-4',
  'x-real-ip': 'way-5',
  via: '1.1 way-6',
  'fly-client-ip': 'way-7',
  x_forwarded_for: 'way-8',
};
const wanted = { 'anthropic-version': '2023-06-01', 'x-client': 'kept', 'idempotency-key': 'kept' };
const headers = { ...secrets, ...way, ...wanted };

const namesOf = (request: EngineRequest | undefined) => Object.keys(request?.headers ?? {});
const shown = (request: EngineRequest | undefined, given: object) =>
  namesOf(request).filter((name) => name in given && request?.headers[name] === given[name as keyof typeof given]);

/** What a third party says of its own host, of its account, and of the request. */
const theirs = {
  'set-cookie': '__cf_bm=x; Path=/',
  'strict-transport-security': 'max-age=1',
  'alt-svc': 'h3=":443"',
  nel: '{}',
  'report-to': '{}',
  'openai-organization': 'org-of-the-operator',
  'anthropic-organization-id': 'org',
  'access-control-allow-origin': 'https://provider.test',
};
const useful = { 'retry-after': '3', 'x-ratelimit-remaining-requests': '9', 'content-type': 'application/json' };

describe('what third parties and clients learn of each other', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let third: Engine;
  let own: Engine;
  let gateway: Gateway;

  before(async () => {
    third = stack.use(await startEngine());
    own = stack.use(await startEngine());
    const routes = [
      { prefix: 'keyed', base_url: `${third.url}/keyed`, api_key: 'ours' },
      { prefix: 'bare', base_url: `${third.url}/bare` },
      { prefix: 'forwarding', base_url: `${third.url}/forwarding`, forward_auth: true },
      { prefix: '*', base_url: 'local' },
      { base_url: `${third.url}/fallback`, api_key: 'ours', fallback: true },
    ];
    const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
    const queue = ['--fallback-retry-init-delay-ms', '10', '--fallback-retry-max-delay-ms', '20'];
    gateway = stack.use(
      await startGateway({
        engines: [own],
        with: ['retry-worker'],
        flags: {
          router: routing,
          ingress: [...routing, '--fallback-retry-queue-enabled', '--trust-forwarded', '127.0.0.1,::1'],
          'retry-worker': [...routing, ...queue],
        },
      }),
    );
  });
  after(() => stack.disposeAsync());

  it('keeps credentials of clients, and what proxies wrote, from endpoints', async () => {
    third.script = () => respond(200, '{}');
    for (const model of ['keyed', 'bare']) {
      for (const path of ['/v1/chat/completions', '/v1/messages']) {
        await ask(gateway.url, { model, path: `${path}?%6bey=secret&limit=1`, headers });
        const request = third.requests.at(-1);
        assert.equal(request?.url, `/${model}${path}?limit=1`);
        assert.deepEqual(shown(request, { ...secrets, ...way }), [], `${model} ${path}`);
        assert.deepEqual(
          namesOf(request).filter((name) => name.startsWith('x-forwarded-')),
          [],
        );
        assert.deepEqual(shown(request, wanted), Object.keys(wanted));
        assert.equal(request?.headers.authorization, model === 'keyed' ? 'Bearer ours' : undefined);
      }
    }
  });

  it('sends them to an endpoint whose route says so; what proxies wrote goes there neither', async () => {
    third.script = () => respond(200, '{}');
    const path = '/v1/chat/completions?key=secret';
    await ask(gateway.url, { model: 'forwarding', path, headers });
    assert.equal(third.requests.at(-1)?.url, `/forwarding${path}`);
    assert.deepEqual(shown(third.requests.at(-1), secrets).sort(), Object.keys(secrets).sort());
    assert.deepEqual(shown(third.requests.at(-1), way), []);
  });

  it('keeps them from a fallback, and from the calls that a retry worker makes for it', async () => {
    own.script = () => respond(500, '{}');
    let calls = 0;
    third.script = () => (++calls < 3 ? respond(429, '{}') : respond(200, '{"fell":"back"}'));
    const path = '/v1/chat/completions';
    const answer = await ask(gateway.url, { model: 'any', id: 'queued', path: `${path}?api_key=secret`, headers });
    assert.equal(answer.text, '{"fell":"back"}');
    const requests = third.requests.filter((request) => request.headers['x-request-id'] === 'queued');
    assert.equal(requests.length, 3);
    for (const request of requests) {
      assert.equal(request.url, `/fallback${path}`);
      assert.deepEqual(shown(request, { ...secrets, ...way }), []);
      assert.equal(request.headers.authorization, 'Bearer ours');
    }
  });

  it('takes the credentials to instances, with a true way of the request', async () => {
    own.script = () => respond(200, '{}');
    await ask(gateway.url, {
      model: 'any',
      headers: { ...headers, 'x-forwarded-proto': 'https', 'x-forwarded-host': 'api.test' },
    });
    const request = own.requests.at(-1);
    assert.deepEqual(shown(request, secrets).sort(), Object.keys(secrets).sort());
    assert.match(String(request?.headers['x-forwarded-for']), /^203\.0\.113\.7, (127\.0\.0\.1|::1)$/);
    assert.equal(request?.headers['x-forwarded-proto'], 'https');
    assert.equal(request?.headers['x-forwarded-host'], 'api.test');
  });

  for (const [what, model, status] of [
    ['an answer', 'bare', 200],
    ['a failure that is passed on', 'keyed', 500],
    ['an answer by way of a retry worker', 'queued', 200],
  ] as const) {
    it(`keeps from clients what a third party says of its own host, in ${what}; its request id is told and logged`, async () => {
      own.script = () => respond(500, '{}');
      let calls = 0;
      third.script = ({ url }) => {
        const limited = model === 'queued' && ++calls < 2;
        const id = { 'x-request-id': `req_${model}_${url.split('/')[1]}` };
        return respond(limited ? 429 : status, '{}', { headers: { ...theirs, ...useful, ...id } });
      };
      const id = `third-${model}`;
      const answer = await ask(gateway.url, { model, id });
      assert.equal(answer.status, status);
      assert.deepEqual(
        Object.keys(theirs).filter((name) => answer.headers.has(name)),
        [],
      );
      for (const [name, value] of Object.entries(useful)) assert.equal(answer.headers.get(name), value);
      assert.equal(answer.headers.get('x-request-id'), id);
      const theirId = answer.headers.get('x-upstream-request-id');
      assert.equal(theirId, `req_${model}_${model === 'bare' ? 'bare' : 'fallback'}`);
      const line = await until(() => gateway.ingress[0]?.logs().find((one) => one.requestId === id), {
        what: 'its log line',
      });
      const attempts = line.attempts as { upstreamRequestId?: string }[];
      assert.equal(attempts.at(-1)?.upstreamRequestId, theirId);
    });
  }

  it('passes on what instances say', async () => {
    own.script = () => respond(200, '{}', { headers: { ...theirs, 'x-request-id': 'engine' } });
    const answer = await ask(gateway.url, { model: 'any' });
    assert.equal(answer.headers.get('set-cookie'), theirs['set-cookie']);
    assert.equal(answer.headers.get('x-upstream-request-id'), null);
  });
});

describe('what a mirror target learns of a client', { timeout: 60_000 }, () => {
  let scene: MirrorScene;
  before(async () => {
    scene = await MirrorScene.start();
  });
  after(() => scene[Symbol.asyncDispose]());

  const copy = async (id: string) => {
    await ask(scene.url, { id, path: '/v1/completions?limit=1&key=secret', headers });
    return until(() => scene.target.requests.find((request) => request.headers['x-request-id'] === id), {
      what: 'the copy',
    });
  };

  it('are no credentials and nothing that proxies wrote, but the configured Authorization', async () => {
    await scene.configure({ Authorization: 'Bearer ours' });
    const request = await copy('configured');
    assert.match(request.url, /\/v1\/completions\?limit=1$/);
    assert.deepEqual(shown(request, { ...secrets, ...way }), []);
    assert.equal(request.headers.authorization, 'Bearer ours');
    await scene.configure();
    assert.deepEqual(shown(await copy('none'), { ...secrets, ...way }), []);
  });

  it('are the credentials when the config says so', async () => {
    await scene.configure({ ForwardAuth: true });
    const request = await copy('forwarded');
    assert.match(request.url, /\/v1\/completions\?limit=1&key=secret$/);
    assert.deepEqual(shown(request, secrets).sort(), Object.keys(secrets).sort());
    assert.deepEqual(shown(request, way), []);
  });
});
