import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Engine, type Service, startEngine, startService, temporaryFolder, until } from '@llm-gateway/testing';
import { chat, post } from './gateway.ts';
import { talk } from './raw-client.ts';

const hashOf = (key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`;
const keys = { a: 'sk-gw-client-a', b: 'sk-gw-client-b', old: 'sk-gw-client-old', off: 'sk-gw-client-off' };
const rows = [
  { name: 'a', hash: hashOf(keys.a) },
  { name: 'b', hash: hashOf(keys.b), models: ['test', 'tiny-*'], forward: 'instance' },
  { name: 'old', hash: hashOf(keys.old), expires: '2020-01-01T00:00:00Z' },
  { name: 'off', hash: hashOf(keys.off), disabled: true },
];

describe('clients with keys', () => {
  const folder = temporaryFolder();
  const path = join(folder, 'keys.json');
  let texts = 0;
  /** As Kubernetes does it: the path is a symlink, which is swapped. */
  const put = (text: string) => {
    const file = join(folder, `keys-${texts++}.json`);
    writeFileSync(file, text);
    symlinkSync(file, `${path}.new`);
    renameSync(`${path}.new`, path);
  };
  let engine: Engine;
  let endpoint: Engine;
  let gateway: Service;
  before(async () => {
    put(JSON.stringify({ keys: rows }));
    engine = await startEngine();
    endpoint = await startEngine();
    const routes = [
      { base_url: 'local', prefix: '*' },
      { base_url: endpoint.url, prefix: 'outside', forward_auth: true },
      { base_url: endpoint.url, aliases: ['tiny-out'], upstream_model: 'large' },
    ];
    gateway = await startService('standalone', [
      ...['--client-keys', `@${path}`, '--client-keys-refresh-interval-ms', '20', '--instance-api-key', 'engine-key'],
      ...['--llm-backend-endpoints', engine.address, '--drain-delay-ms', '0'],
      ...['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)],
    ]);
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
    await endpoint[Symbol.asyncDispose]();
  });

  it('are let in by a key in any of the three headers, of which an instance gets its own alone', async () => {
    for (const headers of [
      { authorization: `Bearer ${keys.a}` },
      { 'x-api-key': keys.a },
      { 'api-key': keys.a, authorization: 'Bearer somebody-elses' },
    ]) {
      const response = await post(gateway.url, chat(), { headers });
      assert.equal(response.status, 200, await response.text());
      const got = engine.requests.at(-1)?.headers;
      assert.equal(got?.authorization, 'Bearer engine-key');
      assert.ok(!JSON.stringify(got).includes('client-a') && !JSON.stringify(got).includes('somebody'));
    }
  });

  it('show their credentials to instances only where their row says so, and to endpoints never', async () => {
    await post(gateway.url, chat(), { headers: { 'x-api-key': keys.b } });
    assert.equal(engine.requests.at(-1)?.headers['x-api-key'], keys.b);
    await post(gateway.url, chat({ model: 'outside' }), { headers: { authorization: `Bearer ${keys.a}` } });
    assert.equal(endpoint.requests.at(-1)?.headers.authorization, undefined);
  });

  it('show no credential of the long list, and their key nowhere, to anybody', async () => {
    const named = { 'x-acme-token': 'secret', x_goog_api_key: 'secret', 'x-auth-user': 'secret', 'x-client': 'kept' };
    const quoting = { 'x-note': `the key ${keys.a}`, baggage: `k=${keys.a}`, 'x-request-id': keys.a };
    const query = `?access_token=secret&note=${encodeURIComponent(keys.a)}&other=%73${keys.a.slice(1)}&limit=1`;
    const headers = { authorization: `Bearer ${keys.a}`, ...named, ...quoting };
    for (const [model, upstream] of [
      ['test', engine],
      ['outside', endpoint],
    ] as const) {
      const response = await post(gateway.url, chat({ model }), { headers, path: `/v1/chat/completions${query}` });
      assert.equal(response.status, 200, await response.text());
      const got = upstream.requests.at(-1);
      assert.equal(got?.url, '/v1/chat/completions?limit=1');
      assert.ok(!/secret|client-a/.test(JSON.stringify(got?.headers)), JSON.stringify(got?.headers));
      assert.equal(got?.headers['x-client'], 'kept');
    }
    const own = { 'x-api-key': keys.b, 'x-acme-token': 'secret' };
    await post(gateway.url, chat(), { headers: own, path: '/v1/chat/completions?token=secret' });
    const got = engine.requests.at(-1);
    assert.equal(got?.url, '/v1/chat/completions?token=secret', 'its row says that instances may have them');
    assert.deepEqual([got?.headers['x-acme-token'], got?.headers['x-api-key']], ['secret', keys.b]);
  });

  it('are refused in the shape of the path, before a body is read', async () => {
    const before = engine.requests.length;
    for (const key of [undefined, 'sk-gw-nobody', keys.old, keys.off]) {
      const authorization = key === undefined ? '' : `authorization: Bearer ${key}\r\n`;
      // The body never comes.
      const head = (path: string) =>
        `POST ${path} HTTP/1.1\r\nhost: g\r\ncontent-length: 100000\r\n${authorization}\r\n`;
      const openai = await talk(gateway.url, head('/v1/chat/completions'));
      assert.match(openai.received, /^HTTP\/1\.1 401 .*www-authenticate: Bearer.*"code":"invalid_api_key"/s);
      const anthropic = await talk(gateway.url, head('/v1/messages'));
      assert.match(anthropic.received, /^HTTP\/1\.1 401 .*"type":"authentication_error"/s);
    }
    assert.equal(engine.requests.length, before);
    assert.equal((await fetch(`${gateway.url}/v1/models`)).status, 401);
  });

  it('may use the models of their row and see no others', async () => {
    const headers = { authorization: `Bearer ${keys.b}` };
    const refused = await post(gateway.url, chat({ model: 'large' }), { headers });
    assert.equal(refused.status, 403);
    const { error } = (await refused.json()) as { error: { code: string } };
    assert.equal(error.code, 'model_not_allowed');
    // What counts is the name that the client gives.
    assert.equal((await post(gateway.url, chat({ model: 'tiny-out' }), { headers })).status, 200);
    assert.equal((endpoint.requests.at(-1)?.json() as { model: string } | undefined)?.model, 'large');
    const models = async (key: string) => {
      const list = await fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
      return ((await list.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
    };
    engine.script = () => (exchange) => {
      const data = ['large', 'test', 'tiny-1'].map((id) => ({ id, object: 'model' }));
      exchange.head(200, { 'content-type': 'application/json' });
      exchange.response.end(JSON.stringify({ object: 'list', data }));
    };
    assert.deepEqual(await models(keys.a), ['large', 'outside', 'test', 'tiny-1', 'tiny-out']);
    assert.deepEqual(await models(keys.b), ['test', 'tiny-1', 'tiny-out']);
  });

  it('follow the file: ten thousand keys are replaced under load without a wrong answer', async () => {
    engine.script = () => (exchange) => {
      exchange.head(200, { 'content-type': 'application/json' });
      exchange.response.end('{}');
    };
    const crowd = Array.from({ length: 10_000 }, (_, n) => ({ name: `c${n}`, hash: hashOf(`sk-c${n}`), rpm: 1e6 }));
    let over = false;
    const wrong: string[] = [];
    const client = async (key: string, expected: number) => {
      let requests = 0;
      while (!over) {
        const { status } = await post(gateway.url, chat(), { headers: { 'x-api-key': key } });
        if (status !== expected) wrong.push(`${key}: ${status}`);
        requests++;
      }
      return requests;
    };
    const load = [client(keys.a, 200), client(keys.a, 200), client('sk-c0x', 401)];
    const generation = async () => (await gateway.metrics()).value('llm_gateway_client_keys_file_generation');
    for (let n = 0; n < 5; n++) {
      const taken = await generation();
      put(JSON.stringify({ keys: [...(n % 2 === 0 ? [...rows, ...crowd] : rows)] }));
      await until(async () => (await generation()) > taken);
      const { status } = await post(gateway.url, chat(), { headers: { 'x-api-key': 'sk-c9999' } });
      assert.equal(status, n % 2 === 0 ? 200 : 401);
    }
    over = true;
    assert.ok((await Promise.all(load)).every((requests) => requests > 0));
    assert.deepEqual(wrong, []);
  });

  it('keep the last good file while a new one is spoiled', async () => {
    put('{"keys":[{"name":"a","hash":"sk-gw-in-the-wrong-place"}]}');
    await until(async () => (await gateway.metrics()).value('llm_gateway_client_keys_file_valid') === 0);
    assert.equal((await post(gateway.url, chat(), { headers: { 'x-api-key': keys.a } })).status, 200);
    await until(() => gateway.output().includes('keys[0].hash (a)'));
    for (const key of [...Object.values(keys), 'sk-gw-in-the-wrong-place']) {
      assert.ok(!gateway.output().includes(key), 'a key is in the log');
    }
  });
});

const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

function token(key: KeyObject, claims: object, header: object = { alg: 'RS256', kid: 'k1' }): string {
  const text = `${encoded(header)}.${encoded(claims)}`;
  return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
}

describe('clients with signed tokens', () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const jwks = JSON.stringify({
    keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' }],
  });
  const claims = (more: object = {}) => ({
    iss: 'https://issuer',
    aud: 'gateway',
    sub: 'ada',
    exp: Math.floor(Date.now() / 1000) + 600,
    ...more,
  });
  let engine: Engine;
  let gateway: Service;
  before(async () => {
    const path = join(temporaryFolder(), 'jwks.json');
    writeFileSync(path, jwks);
    engine = await startEngine();
    gateway = await startService('standalone', [
      ...['--client-jwt-jwks-file', path, '--client-jwt-issuer', 'https://issuer', '--client-jwt-audience', 'gateway'],
      ...['--client-jwt-claims', 'rpm=limit_rpm', '--llm-backend-endpoints', engine.address, '--drain-delay-ms', '0'],
    ]);
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });
  const send = (jwt: string, model = 'test') =>
    post(gateway.url, chat({ model }), { headers: { authorization: `Bearer ${jwt}` } });

  it('are let in, with models and limits by their claims, and an engine does not get the token', async () => {
    const jwt = token(privateKey, claims({ models: 'test tiny-*', limit_rpm: 3 }));
    const statuses: number[] = [];
    for (let n = 0; n < 5; n++) statuses.push((await send(jwt)).status);
    assert.deepEqual(statuses, [200, 200, 200, 429, 429]);
    assert.equal((await send(jwt, 'large')).status, 403);
    assert.ok(!JSON.stringify(engine.requests.map(({ headers }) => headers)).includes(jwt));
    await until(() => gateway.output().includes('"client":"jwt:ada"'));
    assert.ok(!gateway.output().includes(jwt));
  });

  it('are refused with a token of another issuer, audience, key, algorithm or time', async () => {
    const other = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const { exp: _, ...endless } = claims();
    for (const jwt of [
      token(privateKey, claims({ iss: 'https://elsewhere' })),
      token(privateKey, claims({ aud: 'somebody' })),
      token(privateKey, claims({ exp: 1000 })),
      token(privateKey, endless),
      token(privateKey, claims({ sub: '' })),
      token(privateKey, claims({ models: 5 })),
      token(other.privateKey, claims()),
      `${encoded({ alg: 'none' })}.${encoded(claims())}.AA`,
      token(privateKey, claims(), { alg: 'HS256', kid: 'k1' }),
    ]) {
      const response = await send(jwt);
      assert.equal(response.status, 401);
      assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'invalid_api_key');
    }
  });
});
