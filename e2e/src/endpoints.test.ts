import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request as httpRequest, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type Engine, respond, type Service, stall, startEngine, startService } from '@llm-gateway/testing';
import { ask, errorCode } from './answer.ts';

const quiet = ['--drain-delay-ms', '0', '--mirror-config', '/nonexistent'];
const routing = (routes: unknown) => ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];

describe('endpoints as providers have them', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let third: Engine;
  let own: Engine;
  let spare: Engine;
  let gateway: Service;

  before(async () => {
    third = stack.use(await startEngine());
    own = stack.use(await startEngine());
    spare = stack.use(await startEngine(() => respond(200, '{"from":"spare"}')));
    const at = third.url;
    const routes = [
      { prefix: 'gemini', base_url: `${at}/v1beta/openai`, api_key: 'k' },
      {
        prefix: 'azure',
        base_url: `${at}/openai/deployments/d?api-version=2024-10-21`,
        api_key: 'k',
        auth_header: 'api-key',
      },
      {
        prefix: 'anthropic',
        base_url: `${at}/anthropic/v1`,
        headers: { 'x-api-key': 'k', 'anthropic-version': '2023-06-01' },
      },
      { prefix: 'github', base_url: `${at}/inference`, add_v1: false },
      { prefix: 'impatient', base_url: at, timeout_ms: 200 },
      { prefix: '*', base_url: 'local' },
      { base_url: `${spare.url}/v1`, fallback: true },
    ];
    const flags = ['--llm-backend-endpoints', own.address, ...routing(routes), ...quiet];
    gateway = stack.use(await startService('standalone', flags));
  });
  after(() => stack.disposeAsync());

  const called = async (model: string, path = '/v1/chat/completions') => {
    third.script = () => respond(200, '{"ok":1}');
    const headers = { authorization: 'Bearer client', 'anthropic-version': 'of-the-client', 'x-client': 'kept' };
    const answer = await ask(gateway.url, { model, path, headers });
    assert.equal(answer.text, '{"ok":1}');
    const request = third.requests.at(-1);
    assert.ok(request);
    assert.equal(request.headers['x-client'], 'kept');
    return request;
  };

  it('are called behind their own paths, with their own query', async () => {
    assert.equal((await called('gemini')).url, '/v1beta/openai/chat/completions');
    assert.equal((await called('github', '/v1/embeddings?a=1')).url, '/inference/embeddings?a=1');
    const azure = '/openai/deployments/d/chat/completions?api-version=2024-10-21';
    assert.equal((await called('azure')).url, azure);
    assert.equal((await called('azure', '/v1/chat/completions?api-version=other&x=y')).url, `${azure}&x=y`);
  });

  it('get their key in their header, and the headers that their route has', async () => {
    assert.equal((await called('gemini')).headers.authorization, 'Bearer k');
    const azure = (await called('azure')).headers;
    assert.deepEqual([azure['api-key'], azure.authorization], ['k', undefined]);
    const { headers, rawHeaders } = await called('anthropic', '/v1/messages');
    assert.deepEqual(
      [headers['x-api-key'], headers['anthropic-version'], headers.authorization],
      ['k', '2023-06-01', undefined],
    );
    assert.equal(rawHeaders.filter((name) => name.toLowerCase() === 'anthropic-version').length, 1);
  });

  it('that refuse the key of their route are failures, in whatever header it is', async () => {
    third.script = () => respond(401, '{}');
    for (const model of ['azure', 'anthropic'])
      assert.equal((await ask(gateway.url, { model })).text, '{"from":"spare"}');
    assert.equal((await ask(gateway.url, { model: 'github' })).status, 401);
  });

  it('are given up after the time of their route', async () => {
    third.script = () => stall('before-head');
    assert.equal((await ask(gateway.url, { model: 'impatient' })).text, '{"from":"spare"}');
  });

  it('that answer with a redirect have failed, and so have instances; nobody is told where it leads', async () => {
    const away = () => respond(307, 'moved', { headers: { location: 'http://10.0.0.7/internal' } });
    third.script = away;
    own.script = away;
    for (const model of ['gemini', 'of-an-instance']) {
      assert.equal((await ask(gateway.url, { model })).text, '{"from":"spare"}');
    }
    spare.script = away;
    for (const model of ['gemini', 'of-an-instance']) {
      const answer = await ask(gateway.url, { model });
      assert.deepEqual(
        [answer.status, errorCode(answer), answer.headers.get('location')],
        [502, 'upstream_failed', null],
      );
      assert.ok(!answer.text.includes('10.0.0.7'));
    }
  });
});

/** An HTTP proxy by which everything leads to one server, and which notes what it was asked for. */
class AnyProxy implements AsyncDisposable {
  readonly asked: string[] = [];
  readonly authorizations = new Set<string | undefined>();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(to: Engine): Promise<AnyProxy> {
    const server = createServer();
    const proxy = new AnyProxy(server);
    server.on('request', (request, response) => {
      const { url = '', method, headers } = request;
      proxy.asked.push(new URL(url).host);
      proxy.authorizations.add(headers['proxy-authorization']);
      const { pathname, search } = new URL(url);
      const onward = httpRequest(to.url + pathname + search, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      });
      request.pipe(onward);
    });
    server.on('connect', ({ url = '' }, client: Socket) => {
      proxy.asked.push(`CONNECT ${url}`);
      client.on('error', () => {}).end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return proxy;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

describe('a proxy of the environment', { timeout: 120_000 }, () => {
  it('is asked for endpoints, by ingresses and retry workers, and never for instances', async () => {
    let calls = 0;
    await using third = await startEngine(() =>
      ++calls === 2 ? respond(429, '{}') : respond(200, `{"call":${calls}}`),
    );
    await using own = await startEngine(({ headers }) => respond(headers['x-fail'] ? 500 : 200, '{"from":"own"}'));
    await using direct = await startEngine(() => respond(200, '{"from":"direct"}'));
    await using proxy = await AnyProxy.start(third);
    const routes = routing([
      { prefix: 'outside', base_url: 'http://provider.invalid/v1' },
      { prefix: 'secure', base_url: 'https://provider.invalid/v1' },
      { prefix: 'direct', base_url: `${direct.url}/v1` },
      { prefix: '*', base_url: 'local' },
      { base_url: 'http://fallback.invalid:8080/v1', fallback: true },
    ]);
    const env = { HTTP_PROXY: `http://user:pass-of-proxy@${proxy.host}`, NO_PROXY: 'elsewhere.test' };
    const retries = ['--fallback-retry-init-delay-ms', '10', '--fallback-retry-max-delay-ms', '20'];
    const flags = [
      '--llm-backend-endpoints',
      own.address,
      ...routes,
      ...retries,
      '--fallback-retry-queue-enabled',
      ...quiet,
    ];
    await using ingress = await startService('standalone', flags, { env });
    assert.equal((await ask(ingress.url, { model: 'm' })).text, '{"from":"own"}');

    assert.equal((await ask(ingress.url, { model: 'outside' })).text, '{"call":1}');
    assert.deepEqual(proxy.asked.splice(0), ['provider.invalid']);
    assert.equal((await ask(ingress.url, { model: 'direct' })).text, '{"from":"direct"}');
    assert.deepEqual(proxy.asked, []);

    const queued = await ask(ingress.url, { model: 'm', headers: { 'x-fail': '1' } });
    assert.equal(queued.text, '{"call":3}');
    assert.deepEqual(proxy.asked.splice(0), ['fallback.invalid:8080', 'fallback.invalid:8080']);
    assert.deepEqual([...proxy.authorizations], [`Basic ${Buffer.from('user:pass-of-proxy').toString('base64')}`]);
    await ask(ingress.url, { model: 'secure' });
    assert.equal(proxy.asked[0], 'CONNECT provider.invalid:443');
    assert.ok(!ingress.output().includes('pass-of-proxy'));
  });

  it('that is away, or no URL, is a failed call, or no start', async () => {
    await using own = await startEngine();
    const routes = routing([{ prefix: '*', base_url: 'https://provider.invalid/v1' }]);
    const flags = ['--llm-backend-endpoints', own.address, ...routes, ...quiet];
    await using gateway = await startService('standalone', flags, { env: { HTTPS_PROXY: 'http://127.0.0.1:1' } });
    const answer = await ask(gateway.url, { model: 'm' });
    assert.deepEqual([answer.status, errorCode(answer)], [502, 'upstream_failed']);
    await assert.rejects(
      startService('standalone', flags, { env: { HTTPS_PROXY: 'secret-proxy:3128' } }),
      (error: Error) => {
        assert.match(error.message, /HTTPS_PROXY in the environment: allowed: an http or https URL/);
        assert.ok(!error.message.includes('secret-proxy'));
        return true;
      },
    );
  });
});
