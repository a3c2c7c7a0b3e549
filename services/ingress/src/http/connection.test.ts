import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { HeaderLines } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import { until } from '@llm-gateway/testing';
import { ClientScene } from '../exchange/client-scene.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { Cors } from './cors.ts';

const noHeaders = HeaderLines.of([]);

/** Reads the body and answers with it; what is wrong is answered with its code. */
async function echo(exchange: Exchange): Promise<void> {
  try {
    if (exchange.problem !== null) throw exchange.problem;
    const body = await exchange.connection.readBody({ maxBytes: 1e6, holding: exchange.memory });
    exchange.client.answer(200, noHeaders, Buffer.from(`${exchange.request.path}:${body}`));
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    if (error.code !== 'client_closed') exchange.client.refuse(error.code, error.message);
  }
}

class Client {
  readonly socket: Socket;
  text = '';
  closed = false;

  constructor({ port }: ClientScene) {
    this.socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    this.socket.setEncoding('latin1').on('data', (text: string) => {
      this.text += text;
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
    });
    this.socket.on('end', () => this.socket.end());
  }

  async answers(text: string, bytes: string): Promise<void> {
    this.socket.write(bytes, 'latin1');
    await until(() => this.text.endsWith(text));
  }
}

const post = (body: string, ...lines: string[]) =>
  `${['POST /a HTTP/1.1', 'host: x', `content-length: ${body.length}`, ...lines].join('\r\n')}\r\n\r\n${body}`;

const origin = 'https://app.test';

/** The answer to a head on a connection of its own; pages of `origin` may read. */
async function answerFor(bytes: string): Promise<string> {
  const cors = Cors.of({
    corsAllowOrigin: origin,
    corsAllowMethods: 'POST',
    corsAllowHeaders: '*',
    corsMaxAgeS: 1,
  });
  await using scene = await ClientScene.start(echo, { cors });
  const client = new Client(scene);
  client.socket.write(bytes, 'latin1');
  await until(() => client.closed);
  return client.text;
}

describe('the refusal of a head', { timeout: 60_000 }, () => {
  const from = (asking: string) => `POST /a HTTP/1.1\r\nHost: x\r\nOrigin: ${asking}\r\n`;
  const refused: readonly [what: string, status: number, rest: string][] = [
    ['a head too large', 431, `X: ${'y'.repeat(20_000)}\r\n\r\n`],
    ['a head too large that has no end', 431, `X: ${'y'.repeat(20_000)}`],
    ['too many fields', 431, `${'X: y\r\n'.repeat(300)}\r\n`],
    ['two lengths', 400, 'Content-Length: 1\r\nContent-Length: 2\r\n\r\n'],
    ['a length and chunks', 400, 'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['a field that is none', 400, 'X Y: z\r\n\r\n'],
  ];
  for (const [what, status, rest] of refused) {
    it(`may be read by the page of an allowed origin: ${what}`, async () => {
      const mine = await answerFor(from(origin) + rest);
      assert.match(mine, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.match(mine, /\r\naccess-control-allow-origin: https:\/\/app\.test\r\n/);
      const others = await answerFor(from('https://other.test') + rest);
      assert.match(others, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.doesNotMatch(others, /access-control-allow-origin/);
    });
  }

  it('may be read by no page whose origin had not come whole, or came in a body', async () => {
    const large = `POST /a HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(20_000)}`;
    for (const bytes of [`${large}\r\nOrigin: ${origin}`, `${large}\r\n\r\nOrigin: ${origin}\r\n`, '\x16\x03\x01\n']) {
      const answer = await answerFor(bytes);
      assert.match(answer, /^HTTP\/1\.1 4/);
      assert.doesNotMatch(answer, /access-control-allow-origin/);
    }
  });
});

describe('a connection', { timeout: 60_000 }, () => {
  it('serves requests one after the other, however they arrive', async () => {
    await using scene = await ClientScene.start(echo);
    const client = new Client(scene);
    for (const octet of post('one')) client.socket.write(octet);
    await until(() => client.text.endsWith('/a:one'));
    await client.answers('/a:three', post('two') + post('three'));
    assert.equal(client.text.match(/HTTP\/1\.1 200/g)?.length, 3);
  });

  it('begins no pipelined request before the answer before it is over', async () => {
    const begun: Exchange[] = [];
    await using scene = await ClientScene.start((exchange) => void begun.push(exchange));
    const client = new Client(scene);
    client.socket.write(post('').repeat(5000));
    await until(() => begun.length === 1);
    await delay(50);
    assert.equal(begun.length, 1);
    begun[0]?.client.answer(200, noHeaders, Buffer.alloc(0));
    await until(() => begun.length === 2);
  });

  it('asks for a body only when it is going to be read', async () => {
    await using scene = await ClientScene.start((exchange) =>
      exchange.request.path === '/a' ? echo(exchange) : exchange.client.refuse('not_found', 'no'),
    );
    const read = new Client(scene);
    await read.answers('\r\n\r\n', post('', 'expect: 100-continue').replace('content-length: 0', 'content-length: 3'));
    assert.equal(read.text, 'HTTP/1.1 100 Continue\r\n\r\n');
    await read.answers('/a:abc', 'abc');
    const unread = new Client(scene);
    unread.socket.write('POST /b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n');
    await until(() => unread.closed);
    assert.match(unread.text, /^HTTP\/1\.1 404 /);
    assert.match(unread.text, /connection: close/);
  });

  it('keeps a connection whose request was refused when its small body is there already', async () => {
    await using scene = await ClientScene.start((exchange) => exchange.client.refuse('not_found', 'no'));
    const client = new Client(scene);
    client.socket.write(post('abc') + post('def'));
    await until(() => client.text.match(/HTTP\/1\.1 404/g)?.length === 2);
    assert.equal(client.closed, false);
  });

  it('gives a client that closes its side the answer', async () => {
    await using scene = await ClientScene.start(async (exchange) => {
      await delay(100);
      exchange.client.answer(200, noHeaders, Buffer.from('late'));
    });
    const client = new Client(scene);
    client.socket.end(post('x'));
    await until(() => client.closed);
    assert.match(client.text, /HTTP\/1\.1 200 [\s\S]*late$/);
  });

  it('gives a client of HTTP/1.0 that closes its side with its request the answer, however long that took to read', async () => {
    await using scene = await ClientScene.start(async (exchange) => {
      const busyUntilMs = performance.now() + 20;
      while (performance.now() < busyUntilMs);
      await delay(100);
      exchange.client.answer(200, noHeaders, Buffer.from('late'));
    });
    const prompt = new Client(scene);
    prompt.socket.end(post('x').replace('HTTP/1.1', 'HTTP/1.0'));
    await until(() => prompt.closed);
    assert.match(prompt.text, /^HTTP\/1\.1 200 [\s\S]*late$/);
    const left = new Client(scene);
    left.socket.write(post('x').replace('HTTP/1.1', 'HTTP/1.0'));
    await until(() => scene.exchanges.length === 2);
    await delay(40);
    left.socket.end();
    await until(() => left.closed);
    assert.equal(left.text, '');
  });

  it('finds out about a client that left while nothing was written to it', async () => {
    await using scene = await ClientScene.start(() => {});
    const client = new Client(scene);
    client.socket.write(post('x'));
    await until(() => scene.exchanges.length === 1);
    await delay(20);
    client.socket.destroy();
    await until(() => scene.exchanges[0]?.signal.aborted);
    await until(() => scene.server.size === 0);
  });

  it('ends with an answer when what comes is no request', async () => {
    await using scene = await ClientScene.start(echo);
    for (const bytes of ['\x16\x03\x01\x02', 'GET / HTTP/1.1\nhost: x\n\n', 'hello\r\n', 'GET / HTTP/1.1\r\n\r\n']) {
      const client = new Client(scene);
      client.socket.write(bytes, 'latin1');
      await until(() => client.closed);
      assert.match(client.text, /^HTTP\/1\.1 400 /, bytes);
    }
  });

  it('holds heads and bodies to their time, and closes what is idle', async () => {
    const limits = { clientHeadersTimeoutMs: 200, clientRequestTimeoutMs: 300, clientKeepAliveMs: 400 };
    await using scene = await ClientScene.start(echo, limits);
    for (const bytes of ['GET / HT', 'POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc']) {
      const client = new Client(scene);
      client.socket.write(bytes);
      await until(() => client.closed);
      assert.match(client.text, /^HTTP\/1\.1 408 /, bytes);
    }
    const idle = new Client(scene);
    await idle.answers('/a:x', post('x'));
    await until(() => idle.closed);
    assert.match(idle.text, /keep-alive: timeout=1\r\n/);
  });

  it('makes uploads that stand still give way when the budget is tight', async () => {
    await using scene = await ClientScene.start(echo, { maxHeldBodyBytes: 70_000 });
    const client = new Client(scene);
    client.socket.write('POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nabc');
    await until(() => scene.budget.isTight);
    await until(() => client.closed);
    assert.match(client.text, /^HTTP\/1\.1 408 /);
    await until(() => scene.exchanges.length === 1);
  });

  it('refuses connections over its limits with an answer', async () => {
    await using scene = await ClientScene.start(echo, { clientMaxConnectionsPerAddress: 1 });
    const first = new Client(scene);
    await first.answers('/a:x', post('x'));
    const second = new Client(scene);
    await until(() => second.closed);
    assert.match(second.text, /^HTTP\/1\.1 503 /);
    first.socket.destroy();
    await once(first.socket, 'close');
    await until(() => scene.server.size === 0);
    const third = new Client(scene);
    await third.answers('/a:x', post('x'));
  });

  it('says that it closes from the beginning of a shutdown on, and closes idle connections in the drain', async () => {
    await using scene = await ClientScene.start(echo);
    const busy = new Client(scene);
    const idle = new Client(scene);
    await Promise.all([busy.answers('/a:x', post('x')), idle.answers('/a:x', post('x'))]);
    scene.server.announceClose();
    busy.socket.write(post('y'));
    await until(() => busy.closed);
    assert.match(busy.text, /connection: close[\s\S]*\/a:y$/);
    assert.equal(idle.closed, false);
    await scene.server.drain(AbortSignal.timeout(5000), { graceMs: 0 });
    await until(() => idle.closed);
  });
});
