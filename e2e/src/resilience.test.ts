import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { completion, type Engine, respond, type Service, stall, startEngine, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';
import { steadyLoad } from './load.ts';

/** Whatever is killed and comes back, no request fails. */
function survivesKills(gateway: () => Gateway, load: Parameters<typeof steadyLoad>[1]): void {
  it('fails no request when the router, discovery or NATS is killed and comes back', async () => {
    const running = steadyLoad(gateway().url, load);
    await sleep(500);
    await gateway().router[0]?.kill('SIGKILL');
    await sleep(700);
    await gateway().start('router');
    await sleep(500);
    await gateway().discovery[0]?.kill('SIGKILL');
    await sleep(700);
    await gateway().start('discovery');
    await sleep(500);
    await gateway().nats.kill('SIGKILL');
    await sleep(1000);
    await gateway().nats.restart();
    await sleep(1500);
    const books = await running.stop();
    assert.deepEqual(books.failures, []);
    assert.equal(books.sent, books.completed);
    assert.ok(books.sent > 200);
    const ingress = gateway().ingress[0];
    assert.ok(ingress);
    assert.ok(
      (await ingress.metrics()).value('llm_gateway_degraded_decisions_total') > 0,
      'it decided itself meanwhile',
    );
    await until(async () => (await ingress.metrics()).value('llm_gateway_degraded') === 0, {
      what: 'routers decide again',
    });
  });

  it('fails no request while a router hangs instead of dying', async () => {
    const router = await gateway().start('router');
    const running = steadyLoad(gateway().url, load);
    await sleep(300);
    const all = [router, ...gateway().router.filter((one) => !one.ended)];
    for (const one of all) await one.kill('SIGSTOP');
    await sleep(1500);
    for (const one of all) await one.kill('SIGCONT');
    const books = await running.stop();
    assert.deepEqual(books.failures, []);
    assert.equal(books.sent, books.completed);
  });
}

describe('the split into services', () => {
  let engines: Engine[];
  let gateway: Gateway;
  before(async () => {
    engines = await Promise.all([1, 2].map(() => startEngine(() => completion({ delayMs: 20, gapMs: 20 }))));
    gateway = await startGateway({ engines, with: ['console'] });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    for (const engine of engines) await engine[Symbol.asyncDispose]();
  });

  survivesKills(() => gateway, { perSecond: 50 });

  it('fails no request when the console hangs or is killed, and the next one knows what there is', async () => {
    const console = gateway.others[0];
    assert.ok(console);
    const state = async ({ addresses }: Service) => {
      const response = await fetch(`${addresses.console}/api/state`);
      return (await response.json()) as { minute: { counts: { completed: number } }; processes: { service: string }[] };
    };
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    await until(async () => (await state(console)).minute.counts.completed > 0);
    await console.kill('SIGSTOP');
    await sleep(1000);
    await console.kill('SIGCONT');
    await console.kill('SIGKILL');
    await sleep(500);
    const next = await gateway.start('console');
    const services = async () => new Set((await state(next)).processes.map(({ service }) => service));
    await until(async () => (await services()).isSupersetOf(new Set(['ingress', 'router', 'discovery'])));
    await until(async () => (await state(next)).minute.counts.completed > 0);
    const books = await load.stop();
    assert.deepEqual(books.failures, []);
    assert.equal(books.sent, books.completed);
  });

  it('finishes every stream on SIGTERM of an ingress, refuses new requests, and exits 0', async () => {
    const ingress: Service = await gateway.start('ingress');
    for (const engine of engines)
      engine.script = () => completion({ tokens: Array.from({ length: 50 }, (_, i) => `${i} `), gapMs: 20 });
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(ingress.url, chat({ stream: true }))));
    const texts = answers.map((answer) => answer.text());
    const ended = ingress.stop(20_000);
    for (const text of await Promise.all(texts)) assert.ok(text.endsWith('data: [DONE]\n\n'));
    assert.deepEqual(await ended, { code: 0, signal: null });
    await assert.rejects(post(ingress.url, chat()));
  });

  it('lets a slow client take the end of its answer after SIGTERM of an ingress', async () => {
    const ingress: Service = await gateway.start('ingress');
    // More than the buffers of the connections take.
    const bytes = 12_000_000;
    for (const engine of engines) engine.script = () => respond(200, 'x'.repeat(bytes));
    const { hostname, port } = new URL(ingress.url);
    const client = connect(Number(port), hostname);
    const body = chat();
    const request = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    client.pause().write(request);
    const inFlight = async () => (await ingress.metrics()).value('llm_gateway_requests_in_flight');
    await until(async () => (await inFlight()) === 1);
    const ended = ingress.stop(20_000);
    // It has stopped to listen, and looked for idle connections.
    await until(
      async () =>
        await post(ingress.url, chat()).then(
          // An answer that nobody takes would keep the ingress from its end.
          (response) => response.body?.cancel().then(() => false) ?? false,
          () => true,
        ),
    );
    await sleep(200);
    let received = 0;
    client.on('data', (chunk) => {
      received += chunk.length;
    });
    client.resume();
    await once(client, 'close');
    assert.ok(received > bytes, `${received} bytes`);
    assert.deepEqual(await ended, { code: 0, signal: null });
  });
});

describe('the split into services, choosing by what is cached and what engines report', () => {
  let engines: Engine[];
  let gateway: Gateway;
  before(async () => {
    const figures = 'vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n';
    const answer = completion({ delayMs: 20, gapMs: 20 });
    const script = ({ url }: { url: string }) => (url === '/metrics' ? respond(200, figures) : answer);
    engines = await Promise.all([1, 2].map(() => startEngine(script)));
    const policy = ['--scheduling-policy', 'cache-aware'];
    gateway = await startGateway({
      engines,
      flags: { router: policy, ingress: policy, discovery: ['--engine-metrics-interval-ms', '200'] },
    });
    const reports = async () => (await gateway.router[0]?.metrics())?.value('llm_gateway_router_engine_reports_total');
    await until(async () => ((await reports()) ?? 0) > 0);
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    for (const engine of engines) await engine[Symbol.asyncDispose]();
  });

  survivesKills(() => gateway, { perSecond: 50, content: 'All begin alike. '.repeat(300) });
});

describe('two of everything', () => {
  it('works, and load-balance keeps equal engines within 2 of each other at 64 streams', async () => {
    await using stack = new AsyncDisposableStack();
    // Content: what has none is held back for a while.
    const first = 'data: {"choices":[{"delta":{"content":"x"}}]}\n\n';
    const held = stall({ afterBytes: first.length }, { body: `${first}data: [DONE]\n\n` });
    const engines = await Promise.all([1, 2].map(() => startEngine(() => held)));
    for (const engine of engines) stack.use(engine);
    const gateway = stack.use(
      await startGateway({
        engines,
        replicas: { ingress: 2, router: 2, discovery: 2 },
        flags: { router: ['--scheduling-policy', 'load-balance'] },
      }),
    );
    const streams: AbortController[] = [];
    const open = async () => {
      const controller = new AbortController();
      const url = gateway.ingress[streams.length % 2]?.url ?? '';
      streams.push(controller);
      const response = await post(url, chat({ stream: true }), { signal: controller.signal });
      await response.body?.getReader().read();
    };
    const balanced = async (total: number) => {
      await until(() => engines.reduce((sum, engine) => sum + engine.live, 0) === total);
      const [a = 0, b = 0] = engines.map((engine) => engine.live);
      assert.ok(Math.abs(a - b) <= 2, `${a} and ${b} streams`);
    };

    await Promise.all(Array.from({ length: 64 }, open));
    await balanced(64);
    for (let round = 0; round < 5; round++) {
      // Leave at random, which unbalances the engines, and come back one after the other, as clients do.
      for (let n = 0; n < 16; n++) streams.splice(Math.floor(Math.random() * streams.length), 1)[0]?.abort();
      await until(() => engines.reduce((sum, engine) => sum + engine.live, 0) === 48);
      for (let n = 0; n < 16; n++) {
        await open();
        await sleep(20);
      }
      await balanced(64);
    }
    for (const stream of streams) stream.abort();
    await balanced(0);
  });
});
