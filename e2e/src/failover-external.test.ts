import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import {
  cut,
  type Engine,
  freePort,
  raw as rawAnswer,
  refuse,
  respond,
  startEngine,
  startService,
  stream,
  until,
} from '@llm-gateway/testing';
import { ask, begin } from './answer.ts';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

/**
 * Longer than this between two chunks would be cut; what is tested takes several times as long in
 * all.
 */
const silenceMs = 1000;

describe('an external endpoint', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let engine: Engine;
  let spare: Engine;
  let gateway: Gateway;

  before(async () => {
    engine = stack.use(await startEngine());
    spare = stack.use(await startEngine(() => respond(200, 'spare')));
    const routes = [
      { prefix: 'keyed', base_url: `${engine.url}/api/v3`, api_key: 'our-key-0' },
      { prefix: 'plain', base_url: `${engine.url}/compatible-mode/` },
      { prefix: 'forwarding', base_url: engine.url, forward_auth: true },
      { base_url: `${spare.url}/v1`, fallback: true },
    ];
    const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
    const limits = ['--upstream-headers-timeout-ms', silenceMs, '--upstream-idle-timeout-ms', silenceMs].map(String);
    const ingress = [...routing, ...limits, '--expose-route-headers'];
    gateway = stack.use(await startGateway({ engines: [engine], flags: { router: routing, ingress } }));
  });
  after(() => stack.disposeAsync());

  const last = () => {
    const request = engine.requests.at(-1);
    assert.ok(request);
    return request;
  };
  const client = {
    authorization: 'Bearer client-key',
    'x-client': 'kept',
    connection: 'keep-alive, x-hop',
    'x-hop': 'not',
  };

  it("is called at the joined URL, with our key in place of the client's", async () => {
    engine.script = () => respond(200, 'ok');
    const response = await post(gateway.url, chat({ model: 'keyed' }), {
      path: '/v1/chat/completions?a=%2F&b',
      headers: { authorization: client.authorization, 'x-client': 'kept' },
    });
    assert.equal(await response.text(), 'ok');
    assert.equal(last().url, '/api/v3/chat/completions?a=%2F&b');
    assert.equal(last().headers.authorization, 'Bearer our-key-0');
    assert.equal(last().headers['x-client'], 'kept');
    assert.equal(last().headers.host, engine.address);
    assert.equal(last().rawHeaders.filter((name) => name.toLowerCase() === 'authorization').length, 1);
  });

  it("does not see the client's key without one of ours, unless the route says so", async () => {
    engine.script = () => respond(200, 'ok');
    await ask(gateway.url, { model: 'plain', headers: { authorization: client.authorization } });
    assert.equal(last().url, '/compatible-mode/v1/chat/completions');
    assert.equal(last().headers.authorization, undefined);
    await ask(gateway.url, { model: 'forwarding', headers: { authorization: client.authorization } });
    assert.equal(last().headers.authorization, client.authorization);
  });

  it('does not get hop-by-hop headers, nor those that Connection names', async () => {
    engine.script = () =>
      respond(200, 'ok', { headers: { connection: 'x-back, close', 'x-back': 'no', 'x-end': 'yes' } });
    const { response } = await raw(gateway.url, chat({ model: 'plain' }), client);
    assert.equal(last().headers['x-hop'], undefined);
    assert.equal(last().headers['x-client'], 'kept');
    assert.equal(response.headers['x-back'], undefined);
    assert.equal(response.headers['x-end'], 'yes');
  });

  it('gets a body of 20 MB byte for byte', async () => {
    engine.script = () => respond(200, 'ok');
    const filler = randomBytes(15_000_000).toString('base64');
    const body = JSON.stringify({ model: 'keyed', messages: [{ role: 'user', content: filler }] });
    assert.ok(body.length > 20_000_000);
    assert.equal((await post(gateway.url, body)).status, 200);
    assert.equal(hash(last().body), hash(Buffer.from(body)));
  });

  it('answers compressed, and the client gets those bytes and their header', async () => {
    const zipped = gzipSync('{"id":"zipped"}');
    engine.script = () =>
      respond(200, zipped, { headers: { 'content-encoding': 'gzip', 'content-type': 'application/json' } });
    const { response, body } = await raw(gateway.url, chat({ model: 'keyed' }), { 'accept-encoding': 'gzip;q=1.0' });
    assert.equal(last().headers['accept-encoding'], 'gzip;q=1.0');
    assert.equal(response.headers['content-encoding'], 'gzip');
    assert.equal(response.headers['content-length'], String(zipped.length));
    assert.deepEqual(body, zipped);
  });

  it('may stream for as long as it likes: only its silence is limited', async () => {
    const events = Array.from({ length: 16 }, (_, n) => `data: ${n}\n\n`);
    engine.script = () => stream(events, { gapMs: 300 });
    const startedAt = performance.now();
    const answer = await ask(gateway.url, { model: 'keyed', stream: true });
    assert.equal(answer.text, events.join(''));
    assert.ok(answer.whole);
    assert.ok(performance.now() - startedAt > 4 * silenceMs);
  });

  it('gets its large answer through to a client that stops reading for a while', async () => {
    const size = 12_000_000;
    const large = 'x'.repeat(size);
    for (const script of [() => respond(200, large), () => stream([large])]) {
      engine.script = script;
      const response = await open(gateway.url, chat({ model: 'keyed' }), {});
      let bytes = 0;
      for await (const chunk of response) {
        // Long enough for the buffers on the way to fill; nobody may take it for the silence of the endpoint.
        if (bytes === 0) await sleep(1.5 * silenceMs);
        bytes += chunk.length;
      }
      assert.equal(bytes, size);
    }
  });

  it("is replaced when it does not take our key, but may refuse the client's", async () => {
    for (const status of [401, 403, 404]) {
      engine.script = () => refuse(status);
      assert.equal((await ask(gateway.url, { model: 'keyed' })).text, 'spare', String(status));
      assert.equal((await ask(gateway.url, { model: 'plain' })).status, status);
    }
  });

  it('is quoted without our key when it refuses that and nothing else is left', async () => {
    await spare.stop();
    for (const status of [401, 403, 404]) {
      const error = { message: 'no such key: our-key-0', type: 'authentication_error', code: String(status) };
      const hidden = { error: { ...error, message: 'no such key: ***' } };
      engine.script = () => respond(status, { error });
      const answer = await ask(gateway.url, { model: 'keyed' });
      assert.deepEqual([answer.status, JSON.parse(answer.text)], [status, hidden]);
      engine.script = () => stream([`data: ${JSON.stringify({ error })}\n\n`]);
      const event = await ask(gateway.url, { model: 'keyed', stream: true });
      assert.equal(event.status, status);
      assert.equal(JSON.parse(event.text).error.message, hidden.error.message);
    }
    await spare.start();
  });

  it('is quoted without our key also in an error that is passed on, and in a stream that has begun', async () => {
    const error = { message: 'no such key: our-key-0', type: 'invalid_request_error' };
    engine.script = () => respond(400, { error }, { headers: { 'www-authenticate': 'Bearer key="our-key-0"' } });
    const response = await post(gateway.url, chat({ model: 'keyed' }));
    assert.equal(response.status, 400);
    assert.equal(response.headers.get('www-authenticate'), 'Bearer key="***"');
    assert.equal(await response.text(), JSON.stringify({ error: { ...error, message: 'no such key: ***' } }));
    const content = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n';
    engine.script = () => stream([content, `data: ${JSON.stringify({ error })}\n\n`]);
    const answer = await ask(gateway.url, { model: 'keyed', stream: true });
    assert.ok(answer.text.includes('no such key: ***') && !answer.text.includes('our-key-0'), answer.text);
  });

  it('is told of by status and retry-after alone when its failed answer is too large to keep', async () => {
    engine.script = () => respond(500, 'x'.repeat(2_000_000), { headers: { 'retry-after': '9' } });
    spare.script = () => refuse(503, { message: 'spare is down' });
    const replaced = await ask(gateway.url, { model: 'keyed' });
    assert.deepEqual([replaced.status, replaced.whole], [503, true]);
    await spare.stop();
    const own = await ask(gateway.url, { model: 'keyed' });
    assert.deepEqual([own.status, own.text, own.headers.get('retry-after')], [500, '', '9']);
    await spare.start();
  });

  it('is quoted when its successor gave no answer, though that is named as the one that was tried last', async () => {
    engine.script = () => refuse(503, { message: 'engine is down' });
    await spare.stop();
    const answer = await ask(gateway.url, { model: 'keyed' });
    await spare.start();
    assert.equal(answer.status, 503);
    assert.match(answer.text, /engine is down/);
    const told = ['route', 'endpoint', 'attempts'].map((what) => answer.headers.get(`x-gateway-${what}`));
    assert.deepEqual(told, ['fallback', spare.address, '2']);
  });

  it('is quoted with its body when that has no length, as the error pages of HTTP/1.0', async () => {
    engine.script = () =>
      rawAnswer('HTTP/1.0 503 Down\r\ncontent-type: text/html\r\nretry-after: 9\r\n\r\n<p>down</p>');
    await spare.stop();
    const answer = await ask(gateway.url, { model: 'keyed' });
    await spare.start();
    assert.deepEqual([answer.status, answer.text, answer.whole], [503, '<p>down</p>', true]);
    assert.deepEqual([answer.headers.get('content-type'), answer.headers.get('retry-after')], ['text/html', '9']);
  });

  it('has no successor when its client left', async () => {
    spare.script = () => respond(200, 'spare');
    const before = spare.requests.length;
    const asked = begin(gateway.url, { model: 'keyed', id: 'left' });
    engine.script = () => async (reply) => {
      asked.leave();
      await reply.delay(50);
      await refuse(500)(reply);
    };
    await assert.rejects(asked.answer);
    await until(() => engine.requests.at(-1)?.abandoned);
    assert.equal((await ask(gateway.url, { model: 'unknown' })).text, 'spare');
    assert.equal(spare.requests.length, before + 1);
  });
});

describe('a client of HTTP/1.0, to which the end of the connection is the end of the answer', {
  timeout: 60_000,
}, () => {
  it('sees a reset where an answer broke, after all that was sent, and an orderly end where it did not', async () => {
    const body = '{"choices":[1,2,3]}';
    await using engine = await startEngine();
    await using gateway = await startService('standalone', ['--llm-backend-endpoints', engine.address]);
    engine.script = () => stream([body], { headers: { 'content-type': 'application/json' } });
    const whole = await http10(gateway.url);
    assert.deepEqual([whole.body, whole.end], [body, 'FIN']);

    engine.script = () => cut({ afterBytes: 12 }, { body, headers: { 'content-type': 'application/json' } });
    const broken = await http10(gateway.url);
    assert.deepEqual([broken.body, broken.end], [body.slice(0, 12), 'ECONNRESET']);

    const half = 'data: {"n":1}\n\n';
    engine.script = () => cut({ afterBytes: half.length }, { body: half });
    const events = await http10(gateway.url);
    assert.equal(events.end, 'ECONNRESET');
    const [event, last] = events.body.split('\n\n');
    assert.equal(`${event}\n\n`, half);
    assert.equal(JSON.parse(last?.slice('data: '.length) ?? '').error.code, 'upstream_failed');
    assert.equal((await gateway.metrics()).value('llm_gateway_broken_answers_total'), 2);
    await until(async () => (await gateway.metrics()).value('llm_gateway_requests_in_flight') === 0);
  });
});

describe('two gateways that are fallbacks of each other', { timeout: 60_000 }, () => {
  it('each try a request once, and do not pass it round', async () => {
    await using stack = new AsyncDisposableStack();
    await using engine = await startEngine(() => refuse(500));
    const ports = [await freePort(), await freePort()] as const;
    const gateways = await Promise.all(
      [ports, ports.toReversed()].map(async ([own, other]) => {
        const routes = [
          { base_url: 'local', weight: 1 },
          { base_url: `http://127.0.0.1:${other}`, fallback: true, weight: 0 },
        ];
        const routing = ['--route-policy', 'weight', '--route-config', JSON.stringify(routes)];
        const flags = ['--port', String(own), '--llm-backend-endpoints', engine.address, ...routing];
        return stack.use(await startService('standalone', flags));
      }),
    );
    const answer = await ask(gateways[0]?.url ?? '', { model: 'test' });
    assert.equal(answer.status, 500);
    assert.equal(engine.requests.length, 2);
    const served = await Promise.all(
      gateways.map(async (gateway) => (await gateway.metrics()).value('llm_gateway_requests_total')),
    );
    assert.deepEqual(served, [1, 1]);
  });
});

/** As node:http sees it: nothing decoded, headers as they are. */
async function raw(
  base: string,
  body: string,
  headers: Record<string, string>,
): Promise<{ response: IncomingMessage; body: Buffer }> {
  const response = await open(base, body, headers);
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return { response, body: Buffer.concat(chunks) };
}

async function open(base: string, body: string, headers: Record<string, string>): Promise<IncomingMessage> {
  const request = httpRequest(`${base}/v1/chat/completions`, {
    method: 'POST',
    agent: false,
    headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers },
  });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

/** What a client of HTTP/1.0 got, and how the connection ended: `FIN`, or the error's code. */
async function http10(base: string): Promise<{ body: string; end: string }> {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  let text = '';
  let end = '';
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
  });
  socket.on('end', () => {
    end = 'FIN';
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    end = String(error.code);
  });
  const closed = new Promise((resolve) => socket.on('close', resolve));
  const asked = chat();
  const head = [
    'POST /v1/chat/completions HTTP/1.0',
    'content-type: application/json',
    `content-length: ${asked.length}`,
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n${asked}`);
  await closed;
  return { body: text.slice(text.indexOf('\r\n\r\n') + 4), end };
}

function hash(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
