import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type Bus, connectNats, inProcessBus } from '@llm-gateway/bus';
import { HeaderLines } from '@llm-gateway/http1';
import {
  type CopyOutcome,
  type MirrorCopy,
  type MirrorPrimary,
  mirrorPrimary,
  mirrorReport,
  mirrorSend,
} from '@llm-gateway/protocol';
import { Metrics } from '@llm-gateway/runtime';
import { parseMetrics, startNats, temporaryFolder, until } from '@llm-gateway/testing';
import { RequestContent } from '../body.ts';
import { ClientScene } from '../exchange/client-scene.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { Mirror } from './mirror.ts';

interface Job {
  readonly copy: MirrorCopy;
  readonly body: Buffer;
}

interface SceneOptions {
  readonly config?: object;
  readonly poolMaxBytes?: number;
  readonly claimTimeoutMs?: number;
  readonly inlineMaxBytes?: number;
  /** Closed with the scene. */
  readonly bus?: Bus;
}

/**
 * A mirror behind a server that answers each request with its own body, and what a sender would get
 * of it.
 */
class Scene implements AsyncDisposable {
  readonly jobs: Job[] = [];
  readonly primaries: MirrorPrimary[] = [];
  /** The requests that came, as they are known after their answers. */
  readonly exchanges: Exchange[] = [];
  readonly dropsLogged: object[] = [];
  readonly bus: Bus;
  readonly #metrics = new Metrics();
  #clients: ClientScene | undefined;
  #mirror: Mirror | undefined;

  private constructor(bus: Bus) {
    this.bus = bus;
    this.bus.consume(mirrorSend, (copy, body) => void this.jobs.push({ copy, body: Buffer.from(body) }));
    this.bus.subscribe(mirrorPrimary, (primary) => void this.primaries.push(primary));
  }

  /** Answers a request with its own body. */
  async #serve(exchange: Exchange): Promise<void> {
    this.exchanges.push(exchange);
    const body = await exchange.connection.readBody({ maxBytes: 1e8, holding: exchange.memory });
    exchange.received(new RequestContent(body, { model: null, stream: false, members: null }));
    if (this.mirror.on) this.mirror.sample(exchange);
    exchange.client.answer(200, HeaderLines.of(['content-type', 'application/json']), body);
    if (exchange.compared !== undefined) this.mirror.primaryEnded(exchange.compared, exchange);
  }

  static async start(options: SceneOptions = {}): Promise<Scene> {
    const scene = new Scene(options.bus ?? inProcessBus());
    const mirrorConfig = join(temporaryFolder(), 'mirror.json');
    const config = { Enable: true, Target: 'http://target/base', Ratio: 100, ...options.config };
    writeFileSync(mirrorConfig, JSON.stringify(config));
    const log = {
      info(fields: object, message?: string) {
        if (message === 'mirror copy dropped') scene.dropsLogged.push(fields);
      },
      warn() {},
      error() {},
    };
    scene.#mirror = await Mirror.start(
      {
        mirrorConfig,
        mirrorRefreshIntervalMs: 60_000,
        busInlineMaxBytes: options.inlineMaxBytes ?? 100,
        mirrorPoolMaxBytes: options.poolMaxBytes ?? 10_000,
        mirrorClaimTimeoutMs: options.claimTimeoutMs ?? 60_000,
        internalHost: '127.0.0.1',
        internalPort: 0,
        advertiseHost: '',
      },
      { ingress: 'ingress-1', bus: scene.bus, metrics: scene.#metrics, log },
    );
    scene.#clients = await ClientScene.start((exchange) => scene.#serve(exchange));
    return scene;
  }

  get mirror(): Mirror {
    assert.ok(this.#mirror);
    return this.#mirror;
  }

  async post(body: string, options: { path?: string; headers?: Record<string, string> } = {}): Promise<void> {
    const { path = '/v1/chat/completions', headers = {} } = options;
    assert.ok(this.#clients);
    const answer = await fetch(`http://127.0.0.1:${this.#clients.port}${path}`, { method: 'POST', body, headers });
    assert.equal(await answer.text(), body);
  }

  report(copy: number, outcome: CopyOutcome, reason = ''): void {
    this.bus.publish(mirrorReport, { sender: 's', ingress: 'ingress-1', held: [], ended: [{ copy, outcome, reason }] });
  }

  /** Samples of a metric of the mirror that are not zero, as `sent` or `dropped pool_full`. */
  async copies(): Promise<string[]> {
    const { samples } = parseMetrics(await this.#metrics.text());
    return samples
      .filter(({ name, value }) => name === 'llm_gateway_mirror_copies_total' && value > 0)
      .map(({ labels, value }) => `${value} ${labels.outcome} ${labels.reason}`.trim());
  }

  async value(name: string): Promise<number> {
    return parseMetrics(await this.#metrics.text()).value(`llm_gateway_mirror_${name}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#clients?.[Symbol.asyncDispose]();
    await this.#mirror?.[Symbol.asyncDispose]();
    await this.bus[Symbol.asyncDispose]();
  }
}

describe('the mirror', () => {
  it('publishes a copy of a request: joined URL, end-to-end headers, the bytes of its body', async () => {
    await using scene = await Scene.start({ config: { Authorization: 'Key x', Timeout: 5, EnableLog: true } });
    const headers = { 'x-request-id': 'r-1', authorization: 'Bearer client', 'x-own': 'ü' };
    await scene.post('{"a": 1}', { path: '/v1/completions?q=%2F', headers });
    await until(() => scene.jobs.length === 1);
    const [job] = scene.jobs;
    assert.deepEqual(job?.body, Buffer.from('{"a": 1}'));
    const { headers: sent = [], ...fields } = job?.copy ?? {};
    assert.deepEqual(fields, {
      requestId: 'r-1',
      ingress: 'ingress-1',
      copy: 1,
      method: 'POST',
      url: 'http://target/base/v1/completions?q=%2F',
      timeoutMs: 5,
      log: true,
      compare: false,
    });
    const values = new Map(sent.map(([name, value]) => [name.toLowerCase(), value]));
    assert.equal(values.get('x-request-id'), 'r-1');
    assert.equal(values.get('x-own'), 'ü');
    assert.equal(values.get('authorization'), 'Key x');
    for (const hop of ['host', 'connection', 'content-length']) assert.equal(values.has(hop), false);
  });

  it('is off when the config says so, or a ratio of zero or less', async () => {
    for (const config of [{ Enable: false }, { Ratio: 0 }, { Ratio: -5 }]) {
      await using scene = await Scene.start({ config });
      assert.equal(scene.mirror.on, false);
    }
  });

  it('is nothing but a look at `on` for a request while it is off', async () => {
    await using scene = await Scene.start({ config: { Enable: false, Compare: true, EnableLog: true } });
    for (let i = 0; i < 20; i++) await scene.post(JSON.stringify({ text: 'x'.repeat(700) }));
    assert.equal(scene.exchanges.length, 20);
    for (const { compared, client } of scene.exchanges) {
      assert.equal(compared, undefined);
      assert.equal(client.finishReason, undefined);
    }
    for (const name of ['sampled_total', 'copies_total', 'copies_open', 'pool_bytes']) {
      assert.equal(await scene.value(name), 0, name);
    }
    assert.deepEqual([...scene.jobs, ...scene.primaries, ...scene.dropsLogged], []);
  });

  it('leaves other paths alone', async () => {
    await using scene = await Scene.start();
    for (const path of ['/v1/embeddings', '/v1/chat', '/v1/chat/completions/x', '/x/v1/completions']) {
      await scene.post('{}', { path });
    }
    assert.equal(await scene.value('sampled_total'), 0);
  });

  it('keeps a large body until it is fetched with the token', async () => {
    await using scene = await Scene.start();
    const body = JSON.stringify({ text: 'x'.repeat(5000) });
    await scene.post(body);
    await until(() => scene.jobs.length === 1);
    const { copy, body: inline } = scene.jobs[0] as Job;
    assert.equal(inline.length, 0);
    assert.equal(copy.claim?.bytes, body.length);
    const { url = '', token = '' } = copy.claim ?? {};
    assert.ok(url.startsWith(scene.mirror.address));
    assert.equal((await fetch(url)).status, 404);
    const fetched = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(await fetched.text(), body);
    await until(async () => (await scene.value('pool_bytes')) === 0);
    scene.report(1, 'sent');
    await until(async () => (await scene.value('copies_open')) === 0);
    assert.deepEqual(await scene.copies(), ['1 sent']);
  });

  it('drops what does not fit the pool or is not fetched in time, once each', async () => {
    await using scene = await Scene.start({ poolMaxBytes: 1000, claimTimeoutMs: 50 });
    const body = JSON.stringify({ text: 'x'.repeat(700) });
    await scene.post(body);
    await scene.post(body);
    await until(async () => (await scene.copies()).length === 2);
    scene.report(1, 'dropped', 'claim_gone');
    assert.deepEqual((await scene.copies()).sort(), ['1 dropped claim_expired', '1 dropped pool_full']);
    assert.equal(await scene.value('pool_bytes'), 0);
    assert.equal(await scene.value('sampled_total'), 2);
  });

  it('lets go of a body as soon as its copy has ended', async () => {
    await using scene = await Scene.start();
    await scene.post(JSON.stringify({ text: 'x'.repeat(700) }));
    assert.ok((await scene.value('pool_bytes')) > 0);
    scene.report(1, 'dropped', 'queue_full');
    await until(async () => (await scene.value('pool_bytes')) === 0);
    assert.deepEqual(await scene.copies(), ['1 dropped queue_full']);
  });

  it('waits in its drain for bodies that are not fetched yet', async () => {
    await using scene = await Scene.start();
    await scene.post(JSON.stringify({ text: 'x'.repeat(700) }));
    let drained = false;
    const draining = scene.mirror.drain(new AbortController().signal).then(() => {
      drained = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(drained, false);
    scene.report(1, 'sent');
    await draining;
  });

  it('drops at once while the bus is away, and the request goes on', async () => {
    await using scene = await Scene.start();
    await scene.bus[Symbol.asyncDispose]();
    await scene.post('{}');
    assert.deepEqual(await scene.copies(), ['1 dropped bus_disconnected']);
    assert.equal(await scene.value('copies_open'), 0);
  });

  it('has what the bus does not take fetched, whatever may go inline', async () => {
    await using nats = await startNats();
    const bus = connectNats({ natsServers: nats.url }, { name: 'ingress' });
    await using scene = await Scene.start({ bus, inlineMaxBytes: 2_000_000, poolMaxBytes: 2_000_000 });
    await until(() => bus.connected);
    // More than NATS takes in one message.
    const body = JSON.stringify({ text: 'x'.repeat(1_100_000) });
    await scene.post(body);
    await until(() => scene.jobs.length === 1);
    assert.equal(scene.jobs[0]?.copy.claim?.bytes, body.length);
  });

  it('follows so many copies, and drops more', async () => {
    const maxOpen = 65_536;
    await using scene = await Scene.start({ config: { EnableLog: true } });
    await scene.post('{}', { headers: { 'x-request-id': 'many' } });
    const [exchange] = scene.exchanges;
    assert.ok(exchange);
    // One was sampled when it came.
    for (let open = 1; open < maxOpen; open++) scene.mirror.sample(exchange);
    assert.deepEqual(await scene.copies(), []);
    scene.mirror.sample(exchange);
    assert.deepEqual(await scene.copies(), ['1 dropped too_many_open']);
    assert.deepEqual(scene.dropsLogged, [{ requestId: 'many', reason: 'too_many_open' }]);
    assert.equal(await scene.value('copies_open'), maxOpen);
  });

  it('logs each copy that it drops with the id of its request, when it is asked to', async () => {
    await using scene = await Scene.start({ config: { EnableLog: true }, claimTimeoutMs: 50 });
    const post = (id: string, body: string) => scene.post(body, { headers: { 'x-request-id': id } });
    await post('unfetched', JSON.stringify({ text: 'x'.repeat(700) }));
    await until(() => scene.dropsLogged.length === 1);
    await post('told', '{}');
    // The sender has logged it.
    scene.report(2, 'dropped', 'queue_full');
    await until(async () => (await scene.value('copies_open')) === 0);
    await post('unheard-of', '{}');
    await until(() => scene.dropsLogged.length === 2, { timeoutMs: 30_000, what: 'a copy is lost' });
    await scene.bus[Symbol.asyncDispose]();
    await post('unsent', '{}');
    assert.deepEqual(scene.dropsLogged, [
      { requestId: 'unfetched', reason: 'claim_expired' },
      { requestId: 'unheard-of', reason: 'lost' },
      { requestId: 'unsent', reason: 'bus_disconnected' },
    ]);
  });

  it('logs no drop unless it is asked to', async () => {
    await using scene = await Scene.start({ claimTimeoutMs: 50 });
    await scene.post(JSON.stringify({ text: 'x'.repeat(700) }));
    await until(async () => (await scene.copies()).length === 1);
    await scene.bus[Symbol.asyncDispose]();
    await scene.post('{}');
    assert.deepEqual(scene.dropsLogged, []);
  });

  it('tells how the primary of a compared copy ended', async () => {
    await using scene = await Scene.start({ config: { Compare: true } });
    const body = '{"finish_reason":"stop"}';
    await scene.post(body, { headers: { 'x-request-id': 'r-2' } });
    await until(() => scene.primaries.length === 1);
    const { timeToFirstByteMs, durationMs, ...fields } = scene.primaries[0] as MirrorPrimary;
    assert.deepEqual(fields, {
      requestId: 'r-2',
      ingress: 'ingress-1',
      copy: 1,
      status: 200,
      bytes: body.length,
      finishReason: 'stop',
    });
    assert.ok(timeToFirstByteMs !== null && timeToFirstByteMs <= durationMs);
  });
});
