import assert from 'node:assert/strict';
import { Server } from 'node:net';
import { test } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import { ClientScene } from '../exchange/client-scene.ts';

test('the client listener takes IPv4 connections on a machine without IPv6', async (t) => {
  const listen = Server.prototype.listen;
  // As the system answers where the kernel has no IPv6.
  t.mock.method(Server.prototype, 'listen', function (this: Server, ...args: unknown[]): Server {
    const [address] = args;
    if (typeof address !== 'object' || address === null || !('host' in address) || address.host !== '::') {
      return Reflect.apply(listen, this, args);
    }
    const error = Object.assign(new Error('listen EAFNOSUPPORT'), { code: 'EAFNOSUPPORT' });
    process.nextTick(() => this.emit('error', error));
    return this;
  });
  await using scene = await ClientScene.start(
    (exchange) => exchange.client.answer(200, HeaderLines.of([]), Buffer.from('ok')),
    {
      host: '::',
    },
  );
  assert.equal(scene.server.address, `http://0.0.0.0:${scene.port}`);
  const answer = await fetch(`http://127.0.0.1:${scene.port}/`);
  assert.equal(await answer.text(), 'ok');
});
