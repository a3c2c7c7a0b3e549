import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Bus, connectNats, inProcessBus } from '@llm-gateway/bus';
import {
  type CopyOutcome,
  type MirrorCopy,
  type MirrorPrimary,
  mirrorPrimary,
  mirrorReport,
  mirrorSend,
} from '@llm-gateway/protocol';
import { Metrics } from '@llm-gateway/runtime';
import { type NatsServer, parseMetrics, startNats, temporaryFolder, until } from '@llm-gateway/testing';
import { ClientRequest } from '../http/client-request.ts';
import { HeadReader, RefusedHead } from '../http/head-reader.ts';
import { Mirror, type Mirrored } from './mirror.ts';

let nats: NatsServer | undefined;

/** A connection of its own, which sees nothing of other tests. */
function natsBus(): Bus {
  assert.ok(nats);
  return connectNats({ natsServers: nats.url, namespace: `t-${randomUUID()}` }, { name: 'ingress' });
}

interface Job {
  readonly copy: MirrorCopy;
  readonly body: Buffer;
}

interface SceneOptions {
  readonly config?: object;
  readonly poolMaxBytes?: number;
  readonly claimTimeoutMs?: number;
  readonly inlineMaxBytes?: number;
  /** Closed with the scene; left out: one of NATS, and a namespace of its own. */
  readonly bus?: Bus;
}

interface RequestOptions {
  readonly path?: string;
  readonly headers?: Record<string, string>;
}

/** A request with this head and body, which has no answer yet. */
function requestWith(
  body: string,
  { path = '/v1/chat/completions', headers = {} }: RequestOptions,
): Mirrored & { client: { -readonly [K in keyof Mirrored['client']]: Mirrored['client'][K] } } {
  const given = { host: 'gateway', connection: 'keep-alive', 'content-length': String(body.length), ...headers };
  const lines = Object.entries(given).map(([name, value]) => `${name}: ${value}\r\n`);
  const octets = Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1');
  const heads = new HeadReader({ maxHeaderBytes: 16_384, maxHeaderCount: 100 }, { withholdsCredentials: false });
  const head = heads.read(octets, 0);
  assert.ok(typeof head === 'object' && !(head instanceof RefusedHead));
  const request = new ClientRequest(head, 'self', null);
  return {
    id: request.id,
    request,
    content: { body: Buffer.from(body) },
    trace: null,
    client: { committed: false, status: 0, committedAtMs: 0, bodyBytes: 0, finishReason: undefined },
    compared: undefined,
  };
}

/** A mirror, and what a sender would get of it. */
class Scene implements AsyncDisposable {
  readonly jobs: Job[] = [];
  readonly primaries: MirrorPrimary[] = [];
  readonly dropsLogged: object[] = [];
  readonly bus: Bus;
  readonly #metrics = new Metrics();
  #mirror: Mirror | undefined;

  private constructor(bus: Bus) {
    this.bus = bus;
    this.bus.consume(mirrorSend, (copy, body) => void this.jobs.push({ copy, body: Buffer.from(body) }));
    this.bus.subscribe(mirrorPrimary, (primary) => void this.primaries.push(primary));
  }

  static async start(options: SceneOptions = {}): Promise<Scene> {
    const scene = new Scene(options.bus ?? natsBus());
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
    await until(() => scene.bus.connected);
    return scene;
  }

  get mirror(): Mirror {
    assert.ok(this.#mirror);
    return this.#mirror;
  }

  sample(body: string, options: RequestOptions = {}): ReturnType<typeof requestWith> {
    const request = requestWith(body, options);
    this.mirror.sample(request);
    return request;
  }

  report(copy: number, outcome: CopyOutcome, reason = ''): void {
    this.bus.publish(mirrorReport, { sender: 's', ingress: 'ingress-1', held: [], ended: [{ copy, outcome, reason }] });
  }

  /** Samples of a metric of the mirror that are not zero, as `sent` or `dropped pool_full`. */
  async copies(): Promise<string[]> {
    const { samples } = parseMetrics((await this.#metrics.exposition()).text);
    return samples
      .filter(({ name, value }) => name === 'llm_gateway_mirror_copies_total' && value > 0)
      .map(({ labels, value }) => `${value} ${labels.outcome} ${labels.reason}`.trim());
  }

  async value(name: string): Promise<number> {
    return parseMetrics((await this.#metrics.exposition()).text).value(`llm_gateway_mirror_${name}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mirror?.[Symbol.asyncDispose]();
    await this.bus[Symbol.asyncDispose]();
  }
}

describe('the mirror', { timeout: 120_000 }, () => {
  before(async () => {
    nats = await startNats();
  });
  after(() => nats?.[Symbol.asyncDispose]());

  it('publishes a copy of a request: joined URL, end-to-end headers, the bytes of its body', async () => {
    await using scene = await Scene.start({ config: { Authorization: 'Key x', Timeout: 5, EnableLog: true } });
    const headers = { 'x-request-id': 'r-1', authorization: 'Bearer client', 'x-own': 'ü' };
    scene.sample('{"a": 1}', { path: '/v1/completions?q=%2F', headers });
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

  it('leaves other paths alone', async () => {
    await using scene = await Scene.start();
    for (const path of ['/v1/embeddings', '/v1/chat', '/v1/chat/completions/x', '/x/v1/completions']) {
      scene.sample('{}', { path });
    }
    assert.equal(await scene.value('sampled_total'), 0);
  });

  it('keeps a large body until it is fetched with the token', async () => {
    await using scene = await Scene.start();
    const body = JSON.stringify({ text: 'x'.repeat(5000) });
    scene.sample(body);
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
    scene.sample(body);
    scene.sample(body);
    await until(async () => (await scene.copies()).length === 2);
    scene.report(1, 'dropped', 'claim_gone');
    assert.deepEqual((await scene.copies()).sort(), ['1 dropped claim_expired', '1 dropped pool_full']);
    assert.equal(await scene.value('pool_bytes'), 0);
    assert.equal(await scene.value('sampled_total'), 2);
  });

  it('lets go of a body as soon as its copy has ended', async () => {
    await using scene = await Scene.start();
    scene.sample(JSON.stringify({ text: 'x'.repeat(700) }));
    assert.ok((await scene.value('pool_bytes')) > 0);
    scene.report(1, 'dropped', 'queue_full');
    await until(async () => (await scene.value('pool_bytes')) === 0);
    assert.deepEqual(await scene.copies(), ['1 dropped queue_full']);
  });

  it('waits in its drain for bodies that are not fetched yet', async () => {
    await using scene = await Scene.start();
    scene.sample(JSON.stringify({ text: 'x'.repeat(700) }));
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
    scene.sample('{}');
    assert.deepEqual(await scene.copies(), ['1 dropped bus_disconnected']);
    assert.equal(await scene.value('copies_open'), 0);
  });

  it('has what the bus does not take fetched, whatever may go inline', async () => {
    await using scene = await Scene.start({ inlineMaxBytes: 2_000_000, poolMaxBytes: 2_000_000 });
    // More than NATS takes in one message.
    const body = JSON.stringify({ text: 'x'.repeat(1_100_000) });
    scene.sample(body);
    await until(() => scene.jobs.length === 1);
    assert.equal(scene.jobs[0]?.copy.claim?.bytes, body.length);
  });

  it('follows so many copies, and drops more', async () => {
    const maxOpen = 65_536;
    await using scene = await Scene.start({ config: { EnableLog: true }, bus: inProcessBus() });
    const request = requestWith('{}', { headers: { 'x-request-id': 'many' } });
    for (let open = 0; open < maxOpen; open++) scene.mirror.sample(request);
    assert.deepEqual(await scene.copies(), []);
    scene.mirror.sample(request);
    assert.deepEqual(await scene.copies(), ['1 dropped too_many_open']);
    assert.deepEqual(scene.dropsLogged, [{ requestId: 'many', reason: 'too_many_open' }]);
    assert.equal(await scene.value('copies_open'), maxOpen);
  });

  it('logs each copy that it drops with the id of its request, when it is asked to', async () => {
    await using scene = await Scene.start({ config: { EnableLog: true }, claimTimeoutMs: 50 });
    const post = (id: string, body: string) => scene.sample(body, { headers: { 'x-request-id': id } });
    post('unfetched', JSON.stringify({ text: 'x'.repeat(700) }));
    await until(() => scene.dropsLogged.length === 1);
    post('told', '{}');
    // The sender has logged it.
    scene.report(2, 'dropped', 'queue_full');
    await until(async () => (await scene.value('copies_open')) === 0);
    post('unheard-of', '{}');
    await until(() => scene.dropsLogged.length === 2, { timeoutMs: 30_000, what: 'a copy is lost' });
    await scene.bus[Symbol.asyncDispose]();
    post('unsent', '{}');
    assert.deepEqual(scene.dropsLogged, [
      { requestId: 'unfetched', reason: 'claim_expired' },
      { requestId: 'unheard-of', reason: 'lost' },
      { requestId: 'unsent', reason: 'bus_disconnected' },
    ]);
  });

  it('logs no drop unless it is asked to', async () => {
    await using scene = await Scene.start({ claimTimeoutMs: 50 });
    scene.sample(JSON.stringify({ text: 'x'.repeat(700) }));
    await until(async () => (await scene.copies()).length === 1);
    await scene.bus[Symbol.asyncDispose]();
    scene.sample('{}');
    assert.deepEqual(scene.dropsLogged, []);
  });

  it('tells how the primary of a compared copy ended', async () => {
    await using scene = await Scene.start({ config: { Compare: true } });
    const { id, client, compared } = scene.sample('{}', { headers: { 'x-request-id': 'r-2' } });
    assert.ok(compared);
    const answer = Buffer.from('{"finish_reason":"stop"}');
    client.finishReason?.take(answer);
    Object.assign(client, { committed: true, status: 200, committedAtMs: performance.now(), bodyBytes: answer.length });
    scene.mirror.primaryEnded(compared, { ...requestWith('{}', {}), id, client });
    await until(() => scene.primaries.length === 1);
    const { timeToFirstByteMs, durationMs, ...fields } = scene.primaries[0] as MirrorPrimary;
    assert.deepEqual(fields, {
      requestId: 'r-2',
      ingress: 'ingress-1',
      copy: 1,
      status: 200,
      bytes: answer.length,
      finishReason: 'stop',
    });
    assert.ok(timeToFirstByteMs !== null && timeToFirstByteMs <= durationMs);
  });

  it('compares with the status of a client that left when nothing was written to it', async () => {
    await using scene = await Scene.start({ config: { Compare: true } });
    const request = scene.sample('{}');
    assert.ok(request.compared);
    scene.mirror.primaryEnded(request.compared, request);
    await until(() => scene.primaries.length === 1);
    const [primary] = scene.primaries;
    assert.deepEqual([primary?.status, primary?.timeToFirstByteMs, primary?.bytes], [499, null, 0]);
  });

  it('makes no copy of a copy', async () => {
    await using scene = await Scene.start();
    scene.sample('{}');
    await until(() => scene.jobs.length === 1);
    const headers = Object.fromEntries(scene.jobs[0]?.copy.headers ?? []);
    scene.sample('{}', { headers });
    assert.equal(await scene.value('sampled_total'), 1);
  });
});
