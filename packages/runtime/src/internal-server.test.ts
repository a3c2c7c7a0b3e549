import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { until } from '@llm-gateway/testing';
import { InternalServer, type InternalServerOptions } from './internal-server.ts';

interface Scene extends AsyncDisposable {
  readonly url: string;
  /** A connection on which `text` was sent. */
  send(text: string): Promise<Client>;
}

interface Client {
  readonly socket: Socket;
  received(): string;
  closed(): boolean;
}

async function serving({
  handle = (_request, response) => response.end('ok'),
  ...options
}: Omit<InternalServerOptions, 'routes'> & { handle?: RequestListener } = {}): Promise<Scene> {
  const server = new InternalServer({
    ...options,
    routes(app) {
      app.all('/', (request, reply) => {
        reply.hijack();
        handle(request.raw, reply.raw);
      });
      app.get('/broken', () => {
        throw new Error('a secret of the process');
      });
    },
  });
  const { url, port } = await server.listen({ host: '127.0.0.1', port: 0 });
  const sockets: Socket[] = [];
  return {
    url,
    async send(text) {
      const socket = connect(port, '127.0.0.1');
      sockets.push(socket);
      let received = '';
      let closed = false;
      socket.on('data', (chunk) => {
        received += chunk.toString();
      });
      socket.on('close', () => {
        closed = true;
      });
      socket.on('error', () => {});
      await once(socket, 'connect');
      socket.write(text);
      return { socket, received: () => received, closed: () => closed };
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await server[Symbol.asyncDispose]();
    },
  };
}

const get = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n';

describe('an internal server', { concurrency: true }, () => {
  for (const [name, lines] of [
    ['with a length', 'content-length: 1000000'],
    ['in chunks', 'transfer-encoding: chunked'],
    ['that waits for 100 Continue', 'content-length: 5\r\nexpect: 100-continue'],
  ]) {
    it(`refuses a body ${name} before it is read, and closes the connection`, async () => {
      let handled = 0;
      await using server = await serving({ handle: () => handled++ });
      const client = await server.send(`POST / HTTP/1.1\r\nhost: x\r\n${lines}\r\n\r\n`);
      await until(client.closed, { what: 'the connection is closed' });
      assert.match(client.received(), /^HTTP\/1\.1 413 /);
      assert.doesNotMatch(client.received(), /100 Continue/);
      assert.equal(handled, 0);
    });
  }

  it('takes a request that says it has no body', async () => {
    await using server = await serving();
    const client = await server.send('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n');
    await until(() => client.received().endsWith('ok'));
  });

  it('leaves bodies to the route, whatever their type, where they are allowed', async () => {
    await using server = await serving({
      body: { timeoutMs: 1000, maxBytes: 5 },
      handle: (request, response) => request.pipe(response),
    });
    for (const type of ['application/json', 'text/plain', 'no type at all', '']) {
      const answer = await fetch(server.url, { method: 'POST', body: '{"a"', headers: { 'content-type': type } });
      assert.equal(await answer.text(), '{"a"', type);
    }
    const client = await server.send(
      'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    );
    await until(() => client.received().includes('ok'));
  });

  it('refuses a body that announces more than is allowed, unread', async () => {
    let handled = 0;
    await using server = await serving({ body: { timeoutMs: 1000, maxBytes: 5 }, handle: () => handled++ });
    const client = await server.send('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n');
    await until(client.closed, { what: 'the connection is closed' });
    assert.match(client.received(), /^HTTP\/1\.1 413 /);
    assert.equal(handled, 0);
  });

  it('finds nothing where there is no route, and repeats neither path nor error', async () => {
    await using server = await serving();
    for (const [path, options] of [
      ['/elsewhere', {}],
      ['/%', {}],
      ['/broken', { method: 'HEAD' }],
    ] as const) {
      const answer = await fetch(server.url + path, options);
      assert.equal(answer.status, 404, path);
      assert.equal(await answer.text(), options.method === 'HEAD' ? '' : '{"status":"not_found"}');
    }
    const broken = await fetch(`${server.url}/broken`);
    assert.equal(broken.status, 500);
    assert.equal(await broken.text(), '{"status":"failed"}');
  });

  it('serves a new connection however many slow and idle ones there are, and keeps 64 of those', async () => {
    await using server = await serving();
    const idle: Client[] = [];
    for (let n = 0; n < 300; n++) idle.push(await server.send(n % 2 === 0 ? '' : 'GET / HTTP/1.1\r\nslow: '));
    assert.equal(await (await fetch(server.url)).text(), 'ok');
    await until(() => idle.filter((client) => client.closed()).length >= 300 - 64, { what: 'the oldest gave way' });
    assert.ok(idle.at(-1)?.closed() === false, 'the newest stayed');
  });

  it('closes connections whose head does not arrive in time', async () => {
    await using server = await serving();
    const clients = [await server.send(''), await server.send('GET / HTTP/1.1\r\nslow: ')];
    await until(() => clients.every((client) => client.closed()), { what: 'they are closed', timeoutMs: 15_000 });
  });

  it('holds no answers for a client that does not wait for them', async () => {
    let handled = 0;
    await using server = await serving({ handle: () => handled++ });
    const client = await server.send(get.repeat(100));
    await until(client.closed, { what: 'the connection is closed' });
    assert.equal(handled, 1);
  });

  it('takes one request after the other on a connection', async () => {
    await using server = await serving();
    const client = await server.send(get);
    await until(() => client.received().split('ok').length === 2);
    client.socket.write(get);
    await until(() => client.received().split('ok').length === 3);
    assert.equal(client.closed(), false);
  });

  it('cuts an answer that nobody takes', async () => {
    await using server = await serving({
      answerTimeoutMs: 200,
      handle: (_request, response) => response.end(Buffer.alloc(50_000_000)),
    });
    const client = await server.send(get);
    client.socket.pause();
    await until(
      () => {
        client.socket.read();
        return client.closed();
      },
      { what: 'the connection is closed', timeoutMs: 30_000 },
    );
    assert.ok(client.received().length < 50_000_000);
  });

  it('cuts the oldest answer for a newer connection where answers are short', async () => {
    let handled = 0;
    await using server = await serving({ answerTimeoutMs: 60_000, handle: () => handled++ });
    const first = await server.send(get);
    await until(() => handled === 1);
    for (let n = 0; n < 64; n++) await server.send('');
    await until(first.closed, { what: 'the oldest gave way' });
  });

  it('keeps an answer that may take long, however many connections come after it', async () => {
    const finish: (() => void)[] = [];
    await using server = await serving({ handle: (_request, response) => finish.push(() => response.end('late')) });
    const first = await server.send(get);
    await until(() => finish.length === 1);
    const others: Client[] = [];
    for (let n = 0; n < 100; n++) others.push(await server.send(''));
    await until(() => others.filter((client) => client.closed()).length >= 100 - 64);
    finish[0]?.();
    await until(() => first.received().endsWith('late'));
  });
});
