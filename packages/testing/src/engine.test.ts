import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import { completion, cut, event, raw, refuse, respond, stall, stream } from './answer.ts';
import { type Engine, startEngine } from './engine.ts';
import { until } from './until.ts';

/** Sends bytes over a connection of their own; `received` grows as the engine answers. */
async function open(engine: Engine, bytes = 'POST /v1/x HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\n\r\n{}') {
  const socket = connect(engine.port, engine.host);
  const state = { socket, received: '', ended: false, error: '', closed: false };
  socket.on('data', (chunk) => {
    state.received += chunk.toString('latin1');
  });
  socket.on('end', () => {
    state.ended = true;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    state.error = error.code ?? '';
  });
  socket.on('close', () => {
    state.closed = true;
  });
  await once(socket, 'connect');
  socket.write(bytes);
  return state;
}

test('a request is recorded to the byte', async () => {
  await using engine = await startEngine(() => respond(200, { ok: true }));
  const head =
    'POST /v1/chat/completions?x=%20y HTTP/1.1\r\nHost: e\r\nX-Twice: a\r\nx-twice: B\r\nContent-Length: 6\r\n\r\n';
  const client = await open(engine, `${head}{"é"}`);
  await until(() => client.received.endsWith('{"ok":true}'));
  const [recorded] = engine.requests;
  assert.ok(recorded);
  assert.equal(recorded.method, 'POST');
  assert.equal(recorded.url, '/v1/chat/completions?x=%20y');
  assert.deepEqual(recorded.rawHeaders, ['Host', 'e', 'X-Twice', 'a', 'x-twice', 'B', 'Content-Length', '6']);
  assert.deepEqual(recorded.body, Buffer.from('{"é"}'));
  assert.notEqual(recorded.answeredAt, null);
  assert.equal(recorded.abandoned, false);
  client.socket.destroy();
});

test('without a script it answers chat completions, streamed when asked', async () => {
  await using engine = await startEngine();
  const ask = (body: object) => fetch(engine.url, { method: 'POST', body: JSON.stringify(body) });
  const unary = (await (await ask({ model: 'm' })).json()) as { choices: { message: { content: string } }[] };
  assert.equal(unary.choices[0]?.message.content, 'Hello world');
  const streamed = await (await ask({ model: 'm', stream: true })).text();
  assert.equal(streamed.split('\n\n').filter((part) => part.startsWith('data: {')).length, 4);
  assert.ok(streamed.endsWith('data: [DONE]\n\n'));
});

test('a refusal carries each form of Retry-After', async () => {
  await using engine = await startEngine(({ url }) => {
    if (url === '/seconds') return refuse(429, { retryAfter: 2 });
    if (url === '/date') return refuse(503, { retryAfter: new Date(0) });
    return refuse(408, { retryAfterMs: 1500 });
  });
  const seconds = await fetch(`${engine.url}/seconds`);
  assert.deepEqual([seconds.status, seconds.headers.get('retry-after')], [429, '2']);
  const date = await fetch(`${engine.url}/date`);
  assert.deepEqual([date.status, date.headers.get('retry-after')], [503, 'Thu, 01 Jan 1970 00:00:00 GMT']);
  const ms = await fetch(engine.url);
  assert.deepEqual([ms.status, ms.headers.get('retry-after-ms')], [408, '1500']);
});

test('chunks arrive one by one, as far apart as scripted', async () => {
  await using engine = await startEngine(() =>
    stream([event({ n: 1 }), event({ n: 2 }), event('[DONE]')], { gapMs: 100 }),
  );
  const response = await fetch(engine.url);
  const times: number[] = [];
  for await (const chunk of response.body ?? []) {
    assert.ok(chunk.length > 0);
    times.push(performance.now());
  }
  assert.equal(times.length, 3);
  assert.ok((times[2] ?? 0) - (times[0] ?? 0) > 150);
});

test('a connection is cut or broken before the head, after it, or after some bytes', async () => {
  const body = 'data: 1\n\n';
  await using engine = await startEngine();
  const outcome = async (...[at, options]: Parameters<typeof cut>) => {
    engine.script = () => cut(at, { body, ...options });
    const client = await open(engine);
    await until(() => client.closed);
    return { received: client.received, error: client.error };
  };
  assert.deepEqual(await outcome('before-head'), { received: '', error: '' });
  assert.deepEqual(await outcome('before-head', { how: 'reset' }), { received: '', error: 'ECONNRESET' });
  assert.match((await outcome('after-head')).received, /^HTTP\/1.1 200 OK\r\n(.+\r\n)+\r\n$/);
  assert.match((await outcome({ afterBytes: 5 })).received, /\r\n\r\n5\r\ndata:\r\n$/);
  const broken = await outcome({ afterBytes: 5 }, { how: 'reset', headers: { 'content-length': 9 } });
  assert.match(broken.received, /\r\n\r\ndata:$/);
  assert.equal(broken.error, 'ECONNRESET');
  assert.ok(engine.requests.every((request) => !request.abandoned));
});

test('a stalled answer stays open until the client leaves, which is seen at once', async () => {
  await using engine = await startEngine(({ index }) => stall(index === 0 ? 'before-head' : 'after-head'));
  const clients = [await open(engine), await open(engine)];
  await until(() => engine.live === 2 && clients[1]?.received.includes('200 OK'));
  assert.equal(engine.connections, 2);
  const leftAt = performance.now();
  for (const { socket } of clients) socket.destroy();
  await until(() => engine.live === 0);
  for (const request of engine.requests) {
    assert.ok(request.abandoned);
    assert.ok((request.closedAt ?? Number.NaN) >= leftAt);
  }
  await until(() => engine.connections === 0);
});

test('any bytes can be the answer, and the connection can be used again after them', async () => {
  const pieces = [
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    '3;ext=1\r\nabc\r\n',
    '0\r\nTrailer: x\r\n\r\n',
  ];
  await using engine = await startEngine(() => raw(pieces, { ending: 'keep', gapMs: 5 }));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  for (let round = 0; round < 3; round += 1) {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const sent = request(engine.url, { agent }, async (response) => {
      let text = '';
      for await (const chunk of response) text += chunk;
      resolve(text);
    });
    sent.on('error', reject).end();
    assert.equal(await promise, 'abc');
    await until(() => engine.requests[round]?.answeredAt !== null);
  }
  assert.equal(engine.connectionCount, 1);
  assert.deepEqual(
    engine.requests.map((recorded) => recorded.connection),
    [0, 0, 0],
  );
  agent.destroy();
});

test('garbage can be the answer', async () => {
  await using engine = await startEngine(() => raw('SSH-2.0-nothing\r\n'));
  const client = await open(engine);
  await until(() => client.closed);
  assert.equal(client.received, 'SSH-2.0-nothing\r\n');
});

test('an early answer does not wait for the body', async () => {
  await using engine = await startEngine(undefined, { early: () => refuse(413) });
  const client = await open(engine, 'POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 1000000\r\n\r\nabc');
  await until(() => client.received.startsWith('HTTP/1.1 413'));
  assert.equal(engine.requests[0]?.body.length, 0);
  client.socket.destroy();
});

test('a stopped engine breaks its connections and refuses new ones; started again it has the same port', async () => {
  await using engine = await startEngine(() => stall('before-head'));
  const client = await open(engine);
  const recorded = await engine.request(0);
  await engine.stop();
  await until(() => client.error === 'ECONNRESET');
  assert.equal(recorded.abandoned, false);
  await assert.rejects(open(engine), /ECONNREFUSED/);
  engine.script = () => completion();
  await engine.start();
  assert.equal((await fetch(engine.url)).status, 200);
});

test('what is not HTTP is recorded as such', async () => {
  await using engine = await startEngine();
  const client = await open(engine, 'nonsense\r\n\r\n');
  await until(() => client.closed);
  assert.equal(engine.malformed.length, 1);
  assert.equal(engine.requests.length, 0);
});

test('a script that throws fails the test that wrote it', async () => {
  const engine = await startEngine(() => {
    throw new Error('a mistake in the script');
  });
  await assert.rejects(fetch(engine.url));
  await assert.rejects(engine[Symbol.asyncDispose](), /a mistake in the script/);
});

test('five hundred clients at once are served and leave nothing behind', async () => {
  await using engine = await startEngine(() => stream([event(1), event(2)], { gapMs: 1 }));
  const clients = await Promise.all(Array.from({ length: 500 }, () => open(engine)));
  await until(() => clients.every((client) => client.received.endsWith('0\r\n\r\n')), { timeoutMs: 30_000 });
  assert.equal(engine.connections, 500);
  for (const { socket } of clients) socket.end();
  await until(() => engine.connections === 0);
  assert.equal(engine.live, 0);
});
