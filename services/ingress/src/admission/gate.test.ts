import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import { until } from '@llm-gateway/testing';
import { ClientScene } from '../exchange/client-scene.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { Gate } from './gate.ts';

const isCode = (code: string) => (error: unknown) => error instanceof GatewayError && error.code === code;

describe('the gate', () => {
  it('counts a request until its answer is over, and refuses what is over its limit', async () => {
    const gate = new Gate(1);
    const entered: Exchange[] = [];
    await using scene = await ClientScene.start((exchange) => {
      if (gate.inside === 0) {
        gate.enter(exchange.client, { isPromised: false });
        entered.push(exchange);
        return;
      }
      assert.throws(() => gate.enter(exchange.client, { isPromised: false }), isCode('overloaded'));
      exchange.client.answer(503, HeaderLines.of([]), Buffer.alloc(0));
    });
    const first = fetch(scene.server.address);
    await until(() => entered.length === 1);
    assert.equal((await fetch(scene.server.address)).status, 503);
    assert.equal(gate.inside, 1);
    entered[0]?.client.answer(200, HeaderLines.of([]), Buffer.alloc(0));
    assert.equal((await first).status, 200);
    await until(() => gate.inside === 0);
  });

  it('counts a client that leaves as gone', async () => {
    const gate = new Gate(1);
    await using scene = await ClientScene.start((exchange) => gate.enter(exchange.client, { isPromised: false }));
    const socket = connect(scene.port, '127.0.0.1');
    socket.write('GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n');
    await until(() => gate.inside === 1);
    socket.resetAndDestroy();
    await until(() => gate.inside === 0);
  });

  it('lets nobody in once it is closed', async () => {
    const gate = new Gate(1);
    gate.closed = true;
    await using scene = await ClientScene.start((exchange) => {
      assert.throws(() => gate.enter(exchange.client, { isPromised: false }), isCode('draining'));
      exchange.client.answer(503, HeaderLines.of([]), Buffer.alloc(0));
    });
    assert.equal((await fetch(scene.server.address)).status, 503);
  });
});
