import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type Engine, respond, stall, startEngine, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

describe('hostile input', () => {
  let engine: Engine;
  let gateway: Gateway;
  before(async () => {
    engine = await startEngine(() => respond(200, 'ok'));
    gateway = await startGateway({
      engines: [engine],
      flags: {
        ingress: [
          '--max-body-bytes',
          '1000000',
          '--client-headers-timeout-ms',
          '500',
          '--client-request-timeout-ms',
          '1000',
        ],
      },
    });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  /** Writes bytes to the ingress and gives all that comes back until the connection closes. */
  const talk = (pieces: readonly (string | Buffer)[], options: { gapMs?: number } = {}): Promise<string> => {
    const { hostname, port } = new URL(gateway.url);
    const { promise, resolve } = Promise.withResolvers<string>();
    const socket = connect(Number(port), hostname);
    let received = '';
    socket.on('data', (chunk) => {
      received += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(received));
    void (async () => {
      for (const piece of pieces) {
        if (socket.destroyed) break;
        socket.write(piece);
        await new Promise((next) => setTimeout(next, options.gapMs ?? 0));
      }
    })();
    return promise;
  };
  const head = (...lines: string[]) =>
    `${['POST /v1/chat/completions HTTP/1.1', 'host: x', ...lines].join('\r\n')}\r\n\r\n`;
  const status = (answer: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);

  for (const body of [
    '',
    '{',
    'null',
    '[]',
    '"x"',
    '{"model":5}',
    '{"model":{}}',
    '{"stream":"yes","model":"m"}',
    '{"model":"m"}}',
    'ÿþ',
  ]) {
    it(`answers 400 to the body ${JSON.stringify(body)}`, async () => {
      const seen = engine.requests.length;
      const response = await post(gateway.url, body);
      assert.equal(response.status, 400);
      const { error } = (await response.json()) as { error: { code: string; type: string } };
      assert.deepEqual([error.type, error.code], ['invalid_request_error', 'invalid_body']);
      assert.equal(engine.requests.length, seen);
    });
  }

  it('answers 400 to a large body that is no object', async () => {
    const response = await post(gateway.url, `{"model":"m","messages":"${'x'.repeat(100_000)}`);
    assert.equal(response.status, 400);
  });

  it('answers 413 to a body over the limit, announced or not, and reads no more of it than it must', async () => {
    const seen = engine.requests.length;
    const large = Buffer.alloc(1_000_001, 0x20);
    const announced = await post(gateway.url, large);
    assert.equal(announced.status, 413);
    const chunked = await talk([head('transfer-encoding: chunked'), 'f4241\r\n', large, '\r\n0\r\n\r\n']);
    assert.equal(status(chunked), 413);
    const megabyte = Buffer.alloc(1_048_576, 0x20);
    const memory = async () => (await gateway.ingress[0]?.metrics())?.value('process_resident_memory_bytes') ?? 0;
    const before = await memory();
    const huge = await talk([head('content-length: 419430400'), ...Array.from({ length: 400 }, () => megabyte)]);
    assert.equal(status(huge), 413);
    // Read and thrown away: far less than what was sent, though the collector takes its time.
    assert.ok((await memory()) - before < 200_000_000);
    assert.equal(engine.requests.length, seen);
  });

  const smuggled = `${head('content-length: 2')}{}`;
  const malformed: [string, string][] = [
    ['two different Content-Lengths', `${head('content-length: 2', 'content-length: 3')}{}x`],
    ['two equal Content-Lengths', `${head('content-length: 2', 'content-length: 2')}{}`],
    [
      'Content-Length with Transfer-Encoding',
      `${head('content-length: 2', 'transfer-encoding: chunked')}0\r\n\r\n${smuggled}`,
    ],
    ['a Transfer-Encoding that is not chunked', `${head('transfer-encoding: chunked, gzip')}0\r\n\r\n${smuggled}`],
    ['a bad chunk size', `${head('transfer-encoding: chunked')}zz\r\n{}\r\n0\r\n\r\n`],
    ['a chunk longer than it says', `${head('transfer-encoding: chunked')}2\r\n{}}}\r\n0\r\n\r\n`],
    ['a folded header', `${head('x-a: 1\r\n  folded', 'content-length: 2')}{}`],
    ['a blank before the colon', `${head('content-length : 2')}{}`],
    ['no Host', 'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}'],
    ['a bare LF in the head', 'POST /v1/chat/completions HTTP/1.1\nhost: x\ncontent-length: 2\n\n{}'],
    ['a NUL in a header', `${head('x-a: \0', 'content-length: 2')}{}`],
    ['no HTTP', 'hello\r\n\r\n'],
    ['a header flood', head(...Array.from({ length: 3000 }, (_, i) => `x-${i}: ${'v'.repeat(20)}`))],
  ];
  for (const [what, bytes] of malformed) {
    it(`refuses ${what} and closes the connection`, async () => {
      const seen = engine.requests.length;
      const answer = await talk([bytes]);
      assert.ok(answer === '' || (status(answer) >= 400 && status(answer) < 500), answer);
      assert.ok(!answer.includes(' 200 '));
      assert.equal(engine.requests.length, seen, 'nothing reaches an engine');
    });
  }

  it('closes on a head or a body that does not come in time', async () => {
    assert.equal(status(await talk(['POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n'])), 408);
    assert.equal(status(await talk([head('content-length: 1000'), '{'])), 408);
    const slow = Array.from({ length: 40 }, () => 'a');
    assert.equal(status(await talk(['POST /v1/chat/completions HTTP/1.1\r\nx-slow: ', ...slow], { gapMs: 100 })), 408);
  });

  it('understands a target as the engine will, however it is spelled', async () => {
    const body = chat();
    for (const target of ['http://X:80/v1/chat/completions?a=%2F', '/v1/chat/%63ompletions?a=%2F']) {
      const bytes = head(`content-length: ${body.length}`, 'connection: close').replace('/v1/chat/completions', target);
      assert.equal(status(await talk([bytes + body])), 200, target);
      assert.equal(engine.requests.at(-1)?.url, '/v1/chat/completions?a=%2F');
    }
  });

  it('refuses a model whose name is no name, and other requests do not notice', async () => {
    const long = post(gateway.url, chat({ model: 'm'.repeat(900_000) }));
    assert.equal((await post(gateway.url, chat())).status, 200);
    const refused = await long;
    assert.equal(refused.status, 400);
    assert.equal(((await refused.json()) as { error: { param: string } }).error.param, 'model');
    const metrics = await gateway.ingress[0]?.metrics();
    assert.equal(metrics?.value('llm_gateway_degraded_decisions_total'), 0);
  });

  const odd: [what: string, bytes: string, status: number, code: string][] = [
    ['no Host', 'POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}', 400, 'invalid_request'],
    ['an expectation', `${head('expect: miracles', 'content-length: 2')}{}`, 400, 'invalid_request'],
    ['a path that cannot be decoded', 'GET /v1/%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', 404, 'not_found'],
    [
      'a target that names another host',
      'GET http://elsewhere/v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
      400,
      'invalid_request',
    ],
    [
      'a target with a fragment',
      'GET /v1/models#part HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
      400,
      'invalid_request',
    ],
    ['no such path', 'GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', 404, 'not_found'],
    ['no HTTP', 'hello\r\n\r\n', 400, 'invalid_request'],
  ];
  for (const [what, bytes, expected, code] of odd) {
    it(`answers ${what} in the OpenAI shape, with an id that finds its line in the log`, async () => {
      const answer = await talk([bytes]);
      assert.equal(status(answer), expected);
      const id = /x-request-id: (\S+)/.exec(answer)?.[1];
      const body = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4));
      assert.deepEqual([body.error.type, body.error.code], ['invalid_request_error', code]);
      const line = () => gateway.ingress[0]?.logs().find((entry) => entry.msg === 'request' && entry.requestId === id);
      await until(() => line() !== undefined);
      assert.deepEqual([line()?.status, line()?.code], [expected, code]);
    });
  }

  it("leaves it to the engine what a body's type is", async () => {
    for (const type of ['', 'application/x-odd', ';;;']) {
      const body = chat();
      const bytes = head(`content-type: ${type}`, `content-length: ${body.length}`, 'connection: close') + body;
      assert.equal(status(await talk([bytes])), 200, type);
    }
  });

  it('sends one id on, however many the client sent', async () => {
    const body = chat();
    const ids = ['x-request-id: a', 'x-request-id: b', 'connection: close'];
    assert.equal(status(await talk([head(...ids, `content-length: ${body.length}`) + body])), 200);
    const sent = engine.requests.at(-1)?.rawHeaders ?? [];
    assert.equal(sent.filter((name) => name.toLowerCase() === 'x-request-id').length, 1);
  });

  it('answers 400 to a body of more members than any request has, and holds no memory for them', async () => {
    const response = await post(gateway.url, `{${'"":0,'.repeat(190_000)}"model":"m"}`);
    assert.equal(response.status, 400);
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    assert.equal(error.code, 'invalid_body');
    assert.match(error.message, /4096/);
  });

  it('never sends one request twice when requests are pipelined', async () => {
    const seen = engine.requests.length;
    const body = chat();
    const one = `${head(`content-length: ${body.length}`)}${body}`;
    const last = one.replace('host: x', 'host: x\r\nconnection: close');
    const answer = await talk([one + one + last]);
    assert.equal(answer.split('HTTP/1.1 200').length - 1, 3);
    await until(() => engine.requests.length === seen + 3);
  });

  it('still works afterwards', async () => {
    const response = await post(gateway.url, chat());
    assert.equal(await response.text(), 'ok');
  });
});

it('an ingress at its limit says so to clients, in its metrics and in its log', async () => {
  await using engine = await startEngine(() => stall('before-head'));
  await using gateway = await startGateway({
    engines: [engine],
    flags: { ingress: ['--max-concurrent-requests', '1'] },
  });
  const client = new AbortController();
  const held = post(gateway.url, chat(), { signal: client.signal });
  await engine.request(0);
  const refused = await post(gateway.url, chat(), { headers: { 'x-request-id': 'one-too-many' } });
  assert.equal(refused.status, 503);
  assert.equal(refused.headers.get('retry-after'), '1');
  assert.equal(((await refused.json()) as { error: { code: string } }).error.code, 'overloaded');
  const [ingress] = gateway.ingress;
  const labels = { route: 'none', status: '503' };
  assert.equal((await ingress?.metrics())?.value('llm_gateway_requests_total', labels), 1);
  const line = () => ingress?.logs().find(({ requestId, msg }) => requestId === 'one-too-many' && msg === 'request');
  await until(() => line() !== undefined);
  assert.deepEqual([line()?.status, line()?.outcome, line()?.code], [503, 'failed', 'overloaded']);
  client.abort();
  await assert.rejects(held);
});

it('a body is held in about its own bytes, in however small pieces it comes', async () => {
  await using engine = await startEngine(() => stall('before-head'));
  await using gateway = await startGateway({ engines: [engine] });
  const read = async (name: string) => (await gateway.ingress[0]?.metrics())?.value(name) ?? 0;
  const before = await read('process_resident_memory_bytes');
  const body = chat({ content: 'x'.repeat(500_000) });
  const pieces = Array.from(body, (byte) => `1\r\n${byte}\r\n`).join('');
  const { hostname, port } = new URL(gateway.url);
  const client = connect(Number(port), hostname);
  client.write('POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n');
  client.write(`${pieces}0\r\n\r\n`);
  await engine.request(0);
  assert.equal(await read('llm_gateway_held_body_bytes'), body.length);
  const grown = (await read('process_resident_memory_bytes')) - before;
  assert.ok(grown < 60_000_000, `${grown} bytes`);
  client.destroy();
});
