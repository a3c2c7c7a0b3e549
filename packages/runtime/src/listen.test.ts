import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, Server } from 'node:net';
import { test } from 'node:test';
import { listen } from './listen.ts';

async function reaches(host: string, port: number): Promise<boolean> {
  const socket = connect(port, host);
  await once(socket, 'connect');
  socket.destroy();
  return true;
}

test('`::` takes IPv4 and IPv6 connections', async (t) => {
  const server = createServer((socket) => socket.end());
  t.after(() => server.close());
  const { url, port } = await listen(server, { host: '::', port: 0 });
  assert.equal(url, `http://[::]:${port}`);
  assert.ok(await reaches('127.0.0.1', port));
  assert.ok(await reaches('::1', port));
});

test('an address of one family is bound as it is', async (t) => {
  const server = createServer((socket) => socket.end());
  t.after(() => server.close());
  const { url, port } = await listen(server, { host: '127.0.0.1', port: 0 });
  assert.equal(url, `http://127.0.0.1:${port}`);
});

/** As the system answers where the kernel has no IPv6. */
class WithoutIpv6 extends Server {
  override listen(...args: unknown[]): this {
    const [address] = args;
    if (typeof address === 'object' && address !== null && 'host' in address && address.host === '::') {
      const error = Object.assign(new Error('listen EAFNOSUPPORT'), { code: 'EAFNOSUPPORT' });
      process.nextTick(() => this.emit('error', error));
      return this;
    }
    return Reflect.apply(super.listen, this, args);
  }
}

test('`::` stands for every IPv4 address on a machine without IPv6', async (t) => {
  const server = new WithoutIpv6((socket) => socket.end());
  t.after(() => server.close());
  const { url, port } = await listen(server, { host: '::', port: 0 });
  assert.equal(url, `http://0.0.0.0:${port}`);
  assert.ok(await reaches('127.0.0.1', port));
});

test('a port that is taken is an error, also on `::`', async (t) => {
  const [first, second] = [createServer(), createServer()];
  t.after(() => first.close());
  const { port } = await listen(first, { host: '0.0.0.0', port: 0 });
  await assert.rejects(listen(second, { host: '::', port }), { code: 'EADDRINUSE' });
});
