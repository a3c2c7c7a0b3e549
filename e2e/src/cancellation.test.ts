import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
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
    it(`${when} frees the engine within 100 ms, and is counted`, async () => {
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
      const leftAt = performance.now();
      controller.abort();
      await answer.catch(() => {});
      await until(() => asked.abandoned);
      const tookMs = (asked.closedAt ?? Number.POSITIVE_INFINITY) - leftAt;
      assert.ok(tookMs < 100, `${tookMs} ms`);
      await until(async () => (await cancelled()) === start + 1);
    });
  }

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
