import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type Engine, openSockets, stall, startEngine, stream, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

describe('a client that leaves', () => {
  let engine: Engine;
  let gateway: Gateway;
  before(async () => {
    engine = await startEngine();
    gateway = await startGateway({ engines: [engine] });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  for (const [when, script, phase] of [
    ['before the head', stall('before-head'), 'calling'],
    ['after the head', stall('after-head'), 'calling'],
    ['in the stream', stall({ afterBytes: 4 }, { body: 'data' }), 'streaming'],
  ] as const) {
    it(`${when} frees the engine, and is counted`, async () => {
      engine.script = () => script;
      const cancelled = async () =>
        (await gateway.ingress[0]?.metrics())?.value('llm_gateway_cancellations_total', { phase }) ?? 0;
      const start = await cancelled();
      const controller = new AbortController();
      const seen = engine.requests.length;
      const answer = post(gateway.url, chat({ stream: true }), { signal: controller.signal });
      const asked = await engine.request(seen);
      if (phase === 'streaming') await (await answer).body?.getReader().read();
      else await new Promise((resolve) => setTimeout(resolve, 50));
      controller.abort();
      await answer.catch(() => {});
      await until(() => asked.abandoned);
      await until(async () => (await cancelled()) === start + 1);
    });
  }

  it('is noticed among a thousand that leave silent streams: the engine has none then', async () => {
    const first = 'data: {}\n\n';
    engine.script = () => stall({ afterBytes: first.length }, { body: first });
    const sockets = await openStreams(gateway.url, 1000);
    assert.equal(engine.live, 1000);
    for (const socket of sockets) socket.destroy();
    await until(() => engine.live === 0);
  });

  it('leaves nothing behind: 2,000 aborted streams, and sockets and memory are where they were', async () => {
    const event = `data: ${'x'.repeat(100)}\n\n`;
    engine.script = () =>
      stream(
        Array.from({ length: 10_000 }, () => event),
        { gapMs: 5 },
      );
    const ingress = gateway.ingress[0];
    assert.ok(ingress);
    const heap = async () => (await ingress.metrics()).value('nodejs_heap_size_used_bytes');
    const round = (count: number) =>
      Promise.all(Array.from({ length: count }, (_, i) => leaveAfter(gateway.url, i % 5)));
    const settled = () =>
      until(() => engine.live === 0 && openSockets(ingress.pid, { port: engine.port }).length === 0, {
        timeoutMs: 20_000,
      });
    const port = Number(new URL(gateway.url).port);
    const idle = openSockets(ingress.pid, { port }).length;
    await round(100);
    await settled();
    const start = await heap();
    for (let n = 0; n < 20; n++) await round(100);
    await settled();
    await until(async () => (await ingress.metrics()).value('llm_gateway_requests_in_flight') === 0);
    await until(async () => (await ingress.metrics()).value('llm_gateway_held_body_bytes') === 0);
    await until(() => openSockets(ingress.pid, { port }).length <= idle);
    await until(async () => (await heap()) - start < 30_000_000, { timeoutMs: 20_000 });
  });
});

/** So many streams on connections of their own, each of which has begun. */
async function openStreams(base: string, count: number): Promise<Socket[]> {
  const { hostname, port } = new URL(base);
  const body = chat({ stream: true });
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${Buffer.byteLength(body)}`;
  const sockets: Socket[] = [];
  // A listener's backlog is not what is tested.
  for (let open = 0; open < count; open += 50) {
    const opened = Array.from({ length: 50 }, () => connect(Number(port), hostname));
    for (const socket of opened) socket.write(`${head}\r\n\r\n${body}`);
    await Promise.all(opened.map((socket) => once(socket, 'data')));
    sockets.push(...opened);
  }
  return sockets;
}

/** Opens a stream on a connection of its own, and destroys that after so many chunks. */
async function leaveAfter(base: string, chunks: number): Promise<void> {
  const asked = request(`${base}/v1/chat/completions`, { method: 'POST', agent: false });
  asked.on('error', () => {});
  asked.end(chat({ stream: true }));
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  response.on('error', () => {});
  for (let n = 0; n < chunks; n++) await once(response, 'data');
  asked.destroy();
}
