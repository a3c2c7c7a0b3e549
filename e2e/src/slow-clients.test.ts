import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Engine, event, refuse, respond, startEngine, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

const limitMs = 1000;

describe('a client that is slow', { timeout: 60_000 }, () => {
  const stack = new AsyncDisposableStack();
  let engine: Engine;
  let gateway: Gateway;
  before(async () => {
    engine = stack.use(await startEngine());
    gateway = stack.use(
      await startGateway({ engines: [engine], flags: { ingress: ['--client-stall-timeout-ms', String(limitMs)] } }),
    );
  });
  after(() => stack.disposeAsync());

  /** A connection over which requests were sent and from which nothing is read. */
  const send = (requests: number): Socket => {
    const { hostname, port } = new URL(gateway.url);
    const body = chat();
    const request = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    const client = connect(Number(port), hostname);
    client
      .on('error', () => {})
      .pause()
      .write(request.repeat(requests));
    return client;
  };
  const inFlight = async () => (await gateway.ingress[0]?.metrics())?.value('llm_gateway_requests_in_flight');

  it('is given up when it takes nothing of an answer that goes on, and the engine hears of it', async () => {
    engine.script = () => async (reply) => {
      reply.head(200, { 'content-type': 'text/event-stream' });
      for (;;) await reply.write(event('x'.repeat(100_000)));
    };
    const seen = engine.requests.length;
    const client = send(1);
    const request = await engine.request(seen);
    await until(() => request.abandoned);
    assert.equal(await inFlight(), 0);
    client.destroy();
  });

  it('is given up when it takes nothing of answers that have ended', async () => {
    engine.script = () => refuse(429, { message: 'x'.repeat(900_000) });
    const client = send(20);
    await until(async () => ((await inFlight()) ?? 0) > 0);
    await until(async () => (await inFlight()) === 0);
    client.destroy();
  });

  it('is served to the end when it takes a little at a time', async () => {
    const bytes = 12_000_000;
    engine.script = () => respond(200, 'x'.repeat(bytes));
    const client = send(1);
    const startedAtMs = performance.now();
    let received = 0;
    while (received < bytes) {
      await sleep(50);
      assert.equal(client.destroyed, false, `cut after ${received} bytes`);
      received += client.read(200_000)?.length ?? client.read()?.length ?? 0;
    }
    assert.ok(performance.now() - startedAtMs > 2 * limitMs);
    client.destroy();
  });

  it('is not taken for slow while it is the engine that is silent', async () => {
    engine.script = () => async (reply) => {
      reply.head(200, { 'content-type': 'text/event-stream' });
      await reply.write(event('first'));
      await reply.delay(2 * limitMs);
      await reply.write(event('last'));
      reply.end();
    };
    const response = await post(gateway.url, chat({ stream: true }));
    assert.equal(await response.text(), event('first') + event('last'));
  });

  it('whose connection is idle is closed after the time for that', async () => {
    await using other = await startGateway({
      engines: [engine],
      flags: { ingress: ['--client-keep-alive-ms', '100'] },
    });
    engine.script = () => respond(200, 'ok');
    const { hostname, port } = new URL(other.url);
    const body = chat();
    const client = connect(Number(port), hostname);
    client.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    client.resume();
    await once(client, 'close');
  });
});
