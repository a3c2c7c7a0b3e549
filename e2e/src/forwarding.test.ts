import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { cut, type Engine, raw, respond, type Script, stall, startEngine, stream, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

describe('a request through ingress, router and discovery', () => {
  let engine: Engine;
  let gateway: Gateway;
  before(async () => {
    engine = await startEngine();
    gateway = await startGateway({
      engines: [engine],
      flags: { ingress: ['--upstream-headers-timeout-ms', '1500', '--upstream-idle-timeout-ms', '1500'] },
    });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  const send = (script: Script, body = chat(), options: Parameters<typeof post>[2] = {}) => {
    engine.script = script;
    return post(gateway.url, body, options);
  };

  it('takes the body to the engine byte for byte', async () => {
    const body =
      '{ "model":"m" ,\r\n\t"n":9007199254740993, "x":1e400, "unknown":{"a":[ ]}, "t":"\\u00e4 ä 😀", "seed":-0.0}';
    const response = await send(() => respond(200, 'ok'), body, { path: '/v1/chat/completions?q=%20a&b' });
    assert.equal(await response.text(), 'ok');
    const request = engine.requests.at(-1);
    assert.equal(request?.body.toString(), body);
    assert.equal(request?.url, '/v1/chat/completions?q=%20a&b');
  });

  it('brings the answer back byte for byte, and its headers', async () => {
    const answer = Buffer.from('{"id": 9007199254740993,\r\n "x":\t[1e400 ], "t":"ä\\u00e4"}\n');
    const response = await send(() =>
      respond(201, answer, { headers: { 'x-engine': 'a', 'content-type': 'application/json' } }),
    );
    assert.equal(response.status, 201);
    assert.equal(response.headers.get('x-engine'), 'a');
    assert.deepEqual(Buffer.from(await response.arrayBuffer()), answer);
  });

  it('relays every framing of an event stream unchanged, each chunk as it is made', async () => {
    const text = '\uFEFF: hello\ndata: {"a":"ä😀"}\r\n\r\ndata: b\r\rid: 7\nevent: x\ndata: c\n\ndata: [DONE]\n\n';
    const rest = Buffer.from(text);
    // Up to its first content a stream is held.
    const first = Buffer.from('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n');
    const bytes = Buffer.concat([first, rest]);
    // Cut everywhere, also within the multi-byte characters.
    const cuts = Array.from({ length: Math.ceil(rest.length / 5) }, (_, i) => rest.subarray(i * 5, i * 5 + 5));
    const pieces = [first, ...cuts];
    const response = await send(() => stream(pieces, { gapMs: 15 }), chat({ stream: true }));
    const received: Buffer[] = [];
    const at: number[] = [];
    for await (const chunk of response.body ?? []) {
      received.push(Buffer.from(chunk));
      at.push(performance.now());
    }
    assert.deepEqual(Buffer.concat(received), bytes);
    assert.ok(
      received.length > pieces.length * 0.7,
      `${received.length} chunks of ${pieces.length} arrived by themselves`,
    );
    assert.ok((at.at(-1) ?? 0) - (at[0] ?? 0) > pieces.length * 10, 'they came over time, not at the end');
  });

  it("keeps the client's x-request-id and makes one where there is none", async () => {
    const given = await send(() => respond(200, 'ok'), chat(), { headers: { 'x-request-id': 'mine-1' } });
    assert.equal(given.headers.get('x-request-id'), 'mine-1');
    assert.equal(engine.requests.at(-1)?.headers['x-request-id'], 'mine-1');
    const made = await send(() => respond(200, 'ok'));
    assert.match(made.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/);
    assert.equal(engine.requests.at(-1)?.headers['x-request-id'], made.headers.get('x-request-id'));
  });

  it("passes the engine's own error through with its status, body and retry-after", async () => {
    for (const status of [400, 404, 422, 429, 500, 503]) {
      const response = await send(() =>
        respond(status, { error: { message: 'mine' } }, { headers: { 'retry-after': '7' } }),
      );
      assert.equal(response.status, status);
      assert.equal(response.headers.get('retry-after'), '7');
      assert.deepEqual(await response.json(), { error: { message: 'mine' } });
    }
  });

  const broken: [string, Script, number, string][] = [
    ['closes before the head', () => cut('before-head'), 502, 'upstream_failed'],
    ['resets before the head', () => cut('before-head', { how: 'reset' }), 502, 'upstream_failed'],
    ['cuts after the head', () => cut('after-head'), 502, 'upstream_failed'],
    ['is garbled', () => raw('NONSENSE\r\n\r\n'), 502, 'upstream_failed'],
    ['falls silent before the head', () => stall('before-head'), 504, 'upstream_timeout'],
    ['falls silent after the head', () => stall('after-head'), 504, 'upstream_timeout'],
  ];
  for (const [what, script, status, code] of broken) {
    it(`answers ${status} ${code} when the engine ${what}`, async () => {
      const response = await send(script, chat({ stream: true }));
      assert.equal(response.status, status);
      const { error } = (await response.json()) as { error: { code: string; type: string; message: string } };
      assert.equal(error.code, code);
      assert.equal(error.type, 'server_error');
      assert.doesNotMatch(error.message, /\d+\.\d+\.\d+|localhost|:\d{4}/);
    });
  }

  const brokenAfter = (sent: string): [string, Script][] => [
    ['is cut', () => cut({ afterBytes: sent.length }, { body: sent })],
    ['stalls', () => stall({ afterBytes: sent.length }, { body: sent })],
    [
      'is garbled',
      () =>
        raw(
          `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n${sent.length.toString(16)}\r\n${sent}\r\nxyz\r\n`,
        ),
    ],
  ];
  const receiveBroken = async (script: Script) => {
    const response = await send(script, chat({ stream: true }));
    assert.equal(response.status, 200);
    const received: Buffer[] = [];
    await assert.rejects(async () => {
      for await (const chunk of response.body ?? []) received.push(Buffer.from(chunk));
    }, 'the connection ends without the mark of a proper end');
    return Buffer.concat(received).toString();
  };

  const wholeLines = 'data: {"a":1}\n\ndata: {"a":2}\n';
  for (const [what, script] of brokenAfter(wholeLines)) {
    it(`ends a stream that ${what} between lines with one error event and a closed connection, never [DONE]`, async () => {
      const text = await receiveBroken(script);
      assert.ok(text.startsWith(wholeLines));
      const events = text
        .slice(wholeLines.length)
        .split('\n\n')
        .filter((event) => event.trim() !== '');
      assert.equal(events.length, 1);
      const { error } = JSON.parse(events[0]?.trim().replace(/^data: /, '') ?? '') as { error: { code: string } };
      assert.match(error.code, /^upstream_(failed|timeout)$/);
      assert.ok(!text.includes('[DONE]'));
    });
  }

  const halfLine = 'data: {"a":1}\n\ndata: {"a"';
  for (const [what, script] of brokenAfter(halfLine)) {
    it(`cuts a stream that ${what} within a line there: nobody parses half an event`, async () => {
      assert.equal(await receiveBroken(script), halfLine);
    });
  }

  it('breaks a whole answer that is cut instead of ending it', async () => {
    for (const headers of [{ 'content-length': '10' }, {}]) {
      const body = '0123456789';
      const response = await send(() =>
        cut({ afterBytes: 5 }, { body, headers: { 'content-type': 'application/json', ...headers } }),
      );
      await assert.rejects(response.text());
    }
  });

  it('routes the other OpenAI-style calls the same way', async () => {
    for (const path of ['/v1/completions', '/v1/embeddings', '/v1/responses', '/v1/rerank', '/v1/score', '/tokenize']) {
      const response = await send(() => respond(200, path), chat(), { path });
      assert.equal(await response.text(), path);
      assert.equal(engine.requests.at(-1)?.url, path);
    }
  });

  it('gives the union of the models that engines report', async () => {
    engine.script = () => respond(200, { object: 'list', data: [{ id: 'm-1', object: 'model', max_model_len: 5 }] });
    const response = await fetch(`${gateway.url}/v1/models`);
    assert.deepEqual(await response.json(), {
      object: 'list',
      data: [{ id: 'm-1', object: 'model', max_model_len: 5 }],
    });
  });

  it('answers wrong methods and unknown paths in the OpenAI shape', async () => {
    const wrong = await fetch(`${gateway.url}/v1/chat/completions`);
    assert.equal(wrong.status, 405);
    assert.equal(wrong.headers.get('allow'), 'POST');
    const unknown = await post(gateway.url, chat(), { path: '/v2/nothing' });
    assert.equal(unknown.status, 404);
    for (const response of [wrong, unknown]) {
      const { error } = (await response.json()) as { error: Record<string, unknown> };
      assert.deepEqual(Object.keys(error), ['message', 'type', 'param', 'code']);
      assert.ok(response.headers.get('x-request-id'));
    }
  });

  it('slows the engine down to the pace of a slow client, within bounded memory', async () => {
    const piece = Buffer.alloc(65_536, 0x78);
    let written = 0;
    engine.script = () => async (reply) => {
      reply.head(200, { 'content-type': 'text/event-stream' });
      for (let i = 0; i < 1600; i++) {
        await reply.write(piece);
        written += piece.length;
      }
      reply.end();
    };
    const response = await post(gateway.url, chat({ stream: true }));
    const reader = response.body?.getReader();
    await reader?.read();
    // What kernel and process buffers take is a few megabytes; the rest waits in the engine.
    await new Promise((resolve) => setTimeout(resolve, 500));
    const stalledAt = written;
    assert.ok(stalledAt < 40_000_000, `${stalledAt} bytes were taken from the engine`);
    let received = 0;
    for (let next = await reader?.read(); next?.done === false; next = await reader?.read())
      received += next.value.length;
    assert.ok(received > 1599 * piece.length - 1);
    await until(() => written === 1600 * piece.length);
  });

  it('takes decisions from the router, and asks for many in few messages', async () => {
    engine.script = () => respond(200, 'ok', { delayMs: 20 });
    const count = async () => {
      const router = await gateway.router[0]?.metrics();
      const ingress = await gateway.ingress[0]?.metrics();
      const value = (name: string) => router?.value(`llm_gateway_router_${name}`) ?? 0;
      const taken = ingress?.value('llm_gateway_leased_picks_total', { outcome: 'taken' }) ?? 0;
      return {
        messages: value('batch_size_count') + value('leases_total'),
        decisions: value('batch_size_sum') + taken,
      };
    };
    const start = await count();
    const answers = await Promise.all(Array.from({ length: 200 }, () => post(gateway.url, chat())));
    for (const answer of answers) assert.equal(await answer.text(), 'ok');
    const end = await count();
    assert.equal(end.decisions - start.decisions, 200);
    assert.ok(end.messages - start.messages <= 100, `${end.messages - start.messages} messages`);
    const metrics = await gateway.ingress[0]?.metrics();
    assert.equal(metrics?.value('llm_gateway_degraded'), 0);
    assert.equal(metrics?.value('llm_gateway_degraded_decisions_total'), 0);
  });
});
