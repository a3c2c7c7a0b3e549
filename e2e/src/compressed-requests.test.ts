import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { type Engine, respond, type Service, startEngine, startService, until } from '@llm-gateway/testing';
import { chat, post } from './gateway.ts';

const encoders = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync, zstd: zstdCompressSync };

describe('a compressed request', { timeout: 60_000 }, () => {
  const stack = new AsyncDisposableStack();
  let engine: Engine;
  let third: Engine;
  let gateway: Service;
  before(async () => {
    engine = stack.use(await startEngine(() => respond(200, '{"ok":1}')));
    third = stack.use(await startEngine(() => respond(200, '{"ok":1}')));
    const routes = [
      { prefix: 'outside', base_url: `${third.url}/v1` },
      { prefix: '*', base_url: 'local' },
    ];
    gateway = stack.use(
      await startService('standalone', [
        ...[
          '--llm-backend-endpoints',
          engine.address,
          '--route-policy',
          'prefix',
          '--route-config',
          JSON.stringify(routes),
        ],
        ...['--max-body-bytes', '4000000', '--drain-delay-ms', '0', '--mirror-config', '/nonexistent'],
      ]),
    );
  });
  after(() => stack.disposeAsync());

  const send = (body: string | Uint8Array<ArrayBuffer>, coding: string, path = '/v1/responses') =>
    post(gateway.url, body, { path, headers: { 'content-encoding': coding, 'content-digest': 'of=the=encoded' } });
  const refusal = async (response: Response) =>
    `${response.status} ${((await response.json()) as { error: { code: string } }).error.code}`;

  for (const [coding, encode] of Object.entries(encoders)) {
    it(`in ${coding} reaches instances and endpoints decoded`, async () => {
      for (const to of [engine, third]) {
        const model = to === third ? 'outside' : 'm';
        for (const body of [chat({ model }), chat({ model, content: randomBytes(300_000).toString('hex') })]) {
          assert.equal((await send(encode(body), coding)).status, 200);
          const request = to.requests.at(-1);
          assert.equal(request?.body.toString(), body);
          assert.deepEqual(
            [request?.headers['content-encoding'], request?.headers['content-digest']],
            [undefined, undefined],
          );
          assert.equal(request?.headers['content-type'], 'application/json');
        }
      }
    });
  }

  it('that is too large, broken or encoded otherwise is refused as what it is, and nothing is held of it', async () => {
    assert.equal(await refusal(await send(gzipSync(Buffer.alloc(30_000_000)), 'gzip')), '413 body_too_large');
    assert.equal(await refusal(await send(gzipSync(randomBytes(4_100_000)), 'gzip')), '413 body_too_large');
    assert.equal(await refusal(await send(gzipSync(chat()).subarray(0, 40), 'gzip')), '400 invalid_body');
    assert.equal(await refusal(await send(chat(), 'gzip')), '400 invalid_body');
    for (const coding of ['compress', 'gzip, gzip']) {
      const response = await send(chat(), coding);
      assert.equal(response.headers.get('accept-encoding'), 'gzip, deflate, br, zstd');
      assert.equal(await refusal(response), '415 unsupported_encoding');
    }
    await until(async () => (await gateway.metrics()).value('llm_gateway_held_body_bytes') === 0, {
      what: 'nothing is held',
    });
    assert.equal((await send(chat(), 'identity')).status, 200);
  });

  it('or one that is not may begin with a byte order mark', async () => {
    for (const content of ['Hello', 'x'.repeat(50_000)]) {
      const body = chat({ content });
      assert.equal((await post(gateway.url, `\uFEFF${body}`)).status, 200);
      assert.equal(engine.requests.at(-1)?.body.toString(), body);
      assert.equal((await send(gzipSync(`\uFEFF${body}`), 'gzip')).status, 200);
      assert.equal(engine.requests.at(-1)?.body.toString(), body);
    }
  });
});
