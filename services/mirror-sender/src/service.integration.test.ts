import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, connectNats, inProcessBus } from '@llm-gateway/bus';
import {
  type MirrorCopy,
  type MirrorReport,
  mirrorAnnounce,
  mirrorPrimary,
  mirrorReport,
  mirrorSend,
} from '@llm-gateway/protocol';
import { describeSelf, Metrics, type Running } from '@llm-gateway/runtime';
import {
  completion,
  cut,
  freePort,
  type MetricsReading,
  parseMetrics,
  respond,
  type Script,
  stall,
  startBlackHole,
  startEngine,
  startNats,
  stream,
  until,
} from '@llm-gateway/testing';
import { type SenderOptions, start } from './service.ts';

const describeIt = describeSelf({ service: 'mirror-sender', version: '0.0.0', shown: [], readiness: () => 'ready' });

const usual: SenderOptions = {
  mirrorMaxConcurrency: 4,
  mirrorQueueSize: 4,
  mirrorMaxHeldBytes: 1_000_000,
  mirrorAllowedTargets: '',
  mirrorCompareWaitMs: 60_000,
  mirrorCompareLogPercent: 100,
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 60_000,
  upstreamIdleTimeoutMs: 60_000,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 0,
};

type Told = MirrorReport['ended'][number];

/** A sender on a bus, with what an ingress would say to it and hear from it. */
class Scene implements AsyncDisposable {
  readonly bus: Bus;
  readonly logs: Record<string, unknown>[] = [];
  readonly warnings: Record<string, unknown>[] = [];
  readonly told: Told[] = [];
  readonly held = new Set<number>();
  readonly #metrics = new Metrics();
  readonly #shutdown = new AbortController();
  readonly #ownsBus: boolean;
  #running: Running | undefined;

  constructor(bus?: Bus) {
    this.bus = bus ?? inProcessBus();
    this.#ownsBus = bus === undefined;
    this.bus.subscribe(mirrorReport, ({ ingress, held, ended }) => {
      assert.equal(ingress, 'ingress-1');
      this.told.push(...ended);
      for (const copy of held) this.held.add(copy);
    });
  }

  static async start(change: Partial<SenderOptions> = {}, bus?: Bus): Promise<Scene> {
    const scene = new Scene(bus);
    const log = {
      info: (fields: object) => void scene.logs.push({ ...fields }),
      warn: (fields: object) => void scene.warnings.push({ ...fields }),
    };
    const deps = {
      bus: scene.bus,
      metrics: scene.#metrics,
      log,
      shutdown: scene.#shutdown.signal,
      describe: describeIt,
    };
    scene.#running = await start({ ...usual, ...change }, deps);
    return scene;
  }

  send(target: string, change: Partial<MirrorCopy> = {}, body: string | Buffer = '{}'): void {
    const copy: MirrorCopy = {
      requestId: 'r',
      ingress: 'ingress-1',
      copy: 1,
      method: 'POST',
      url: `${target}/v1/chat/completions`,
      headers: [],
      timeoutMs: 0,
      log: false,
      compare: false,
      ...change,
    };
    this.bus.send(mirrorSend, copy, Buffer.from(body as string));
  }

  /** An ingress says where it holds large bodies. */
  announce(origin: string, name = 'ingress-1'): void {
    this.bus.publish(mirrorAnnounce, { name, origin });
  }

  /** What became of so many copies, as their ingress was told. */
  async ends(count: number): Promise<string[]> {
    await until(() => this.told.length >= count, { timeoutMs: 30_000, what: `${count} copies have ended` });
    return this.told.map(({ copy, outcome, reason }) => `${copy} ${outcome} ${reason}`.trim()).sort();
  }

  async metrics(): Promise<MetricsReading> {
    return parseMetrics((await this.#metrics.exposition()).text);
  }

  async stop(drainMs: number): Promise<void> {
    this.#shutdown.abort();
    await this.#running?.drain?.(AbortSignal.timeout(drainMs));
    await this.#running?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]();
    if (this.#ownsBus) await this.bus[Symbol.asyncDispose]();
  }
}

describe('a mirror-sender', { timeout: 120_000 }, () => {
  it('sends a copy as it is told, and tells its ingress', async () => {
    await using engine = await startEngine();
    await using scene = await Scene.start();
    const body = Buffer.from([0x7b, 0xff, 0x00, 0x7d]);
    scene.send(
      `${engine.url}/base`,
      {
        copy: 7,
        url: `${engine.url}/base/v1/completions?a=%2F&b`,
        headers: [
          ['X-Request-Id', 'r'],
          ['x-twice', '1'],
          ['X-Twice', '2'],
          ['authorization', 'Bearer s3cret'],
        ],
      },
      body,
    );
    engine.script = () => respond(200, 'ok');
    assert.deepEqual(await scene.ends(1), ['7 sent']);
    const [received] = engine.requests;
    assert.equal(received?.method, 'POST');
    assert.equal(received?.url, '/base/v1/completions?a=%2F&b');
    assert.deepEqual(received?.body, body);
    const sent = received?.rawHeaders.filter((_, i, all) => /^(x-|auth)/i.test(all[i - (i % 2)] ?? ''));
    assert.deepEqual(sent, ['X-Request-Id', 'r', 'x-twice', '1', 'X-Twice', '2', 'authorization', 'Bearer s3cret']);
    assert.deepEqual(scene.logs, [], 'nothing is logged unless the config asks for it');
  });

  it('tells how a copy failed, and logs it without a query, a header or a body when it is asked to', async () => {
    const scripts: Record<string, Script> = {
      status_4xx: () => respond(429, 'busy'),
      status_5xx: () => respond(500, 'broken'),
      reset: () => cut('before-head', { how: 'reset' }),
      truncated: () => cut({ afterBytes: 2 }, { body: 'data', headers: { 'content-length': 9 } }),
      timeout: () => stall('after-head'),
    };
    await using scene = await Scene.start();
    for (const [reason, script] of Object.entries(scripts)) {
      await using engine = await startEngine(script);
      const before = scene.told.length;
      scene.send(engine.url, {
        url: `${engine.url}/v1/completions?key=s3cret`,
        headers: [['authorization', 's3cret']],
        log: true,
        timeoutMs: reason === 'timeout' ? 100 : 0,
      });
      await scene.ends(before + 1);
      assert.deepEqual(scene.told.at(-1), { copy: 1, outcome: 'failed', reason });
      assert.equal(scene.logs.at(-1)?.reason, reason);
      assert.equal(engine.requests.length, 1, 'nothing is sent twice');
    }
    scene.send(`http://127.0.0.1:${await freePort()}`);
    await scene.ends(6);
    assert.equal(scene.told.at(-1)?.reason, 'refused');
    assert.doesNotMatch(JSON.stringify(scene.logs), /s3cret/);
    const reading = await scene.metrics();
    assert.equal(reading.value('llm_gateway_mirror_sender_received_total'), 6);
    assert.equal(reading.value('llm_gateway_mirror_sender_copies_total', { outcome: 'failed' }), 6);
  });

  it('gives a target that cannot be reached up after the time its config gives it', async () => {
    await using target = await startBlackHole();
    await using scene = await Scene.start();
    scene.send(target.url, { timeoutMs: 150 });
    assert.deepEqual(await scene.ends(1), ['1 failed timeout']);
  });

  it('never sends a copy again, not even over a connection that turns out to be closed', async () => {
    await using engine = await startEngine(({ index }) => (index % 2 ? cut('before-head') : respond(200, 'ok')));
    await using scene = await Scene.start();
    for (let copy = 0; copy < 20; copy++) {
      scene.send(engine.url, { copy, headers: [['x-copy', String(copy)]] });
      // One after the other, so that connections are used again.
      await until(async () => (await scene.metrics()).value('llm_gateway_mirror_sender_copies_total') > copy);
    }
    const sent = engine.requests.map(({ headers }) => headers['x-copy']);
    assert.deepEqual(sent, [...new Set(sent)]);
  });

  it('says what it holds until it has ended, and drops what it has no room for', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    await using scene = await Scene.start({ mirrorMaxConcurrency: 2, mirrorQueueSize: 3 });
    for (let copy = 1; copy <= 8; copy++) scene.send(engine.url, { copy });
    assert.deepEqual(await scene.ends(3), ['6 dropped queue_full', '7 dropped queue_full', '8 dropped queue_full']);
    await until(() => scene.held.size === 5);
    assert.deepEqual([...scene.held].sort(), [1, 2, 3, 4, 5]);
    assert.equal(engine.requests.length, 2);
    await engine.stop();
    assert.equal((await scene.ends(8)).filter((end) => end.includes('failed')).length, 5);
    const reading = await scene.metrics();
    assert.equal(reading.value('llm_gateway_mirror_sender_held_bytes'), 0);
  });

  it('holds no more bytes than it may, those to be claimed included', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    await using scene = await Scene.start({ mirrorMaxHeldBytes: 1000 });
    scene.send(engine.url, { copy: 1 }, Buffer.alloc(900));
    scene.send(engine.url, { copy: 2 }, Buffer.alloc(101));
    scene.send(engine.url, { copy: 3, claim: { url: `${engine.url}/claims/x`, token: 't', bytes: 101 } }, '');
    assert.deepEqual(await scene.ends(2), ['2 dropped queue_full', '3 dropped queue_full']);
    assert.equal((await scene.metrics()).value('llm_gateway_mirror_sender_held_bytes'), 900);
  });

  it('reads an endless answer without keeping it', async () => {
    const piece = Buffer.alloc(1_000_000, 'x');
    await using engine = await startEngine(() => stream(Array.from({ length: 100 }, () => piece)));
    await using scene = await Scene.start();
    scene.send(engine.url, { log: true });
    await scene.ends(1);
    assert.equal(scene.logs[0]?.responseBytes, 100_000_000);
    assert.ok(process.memoryUsage().arrayBuffers < 80_000_000);
  });

  it('claims a large body once, with its token, and tells when it cannot be had', async () => {
    const body = Buffer.alloc(3_000_000, 'b');
    await using target = await startEngine(() => respond(200, 'ok'));
    const headers = { 'x-gateway-ingress': 'ingress-1' };
    await using holder = await startEngine(({ url }) =>
      url === '/claims/1' ? respond(200, body, { headers }) : respond(404),
    );
    await using scene = await Scene.start({ mirrorMaxHeldBytes: 4_000_000 });
    scene.announce(holder.url);
    const claim = (copy: number) => ({ url: `${holder.url}/claims/${copy}`, token: 'one-time', bytes: body.length });
    scene.send(target.url, { copy: 1, claim: claim(1) }, '');
    assert.deepEqual(await scene.ends(1), ['1 sent']);
    assert.deepEqual(target.requests[0]?.body, body);
    assert.equal(holder.requests[0]?.headers.authorization, 'Bearer one-time');

    scene.send(target.url, { copy: 2, claim: claim(2) }, '');
    await scene.ends(2);
    await holder.stop();
    scene.send(target.url, { copy: 3, claim: claim(3) }, '');
    assert.deepEqual(await scene.ends(3), ['1 sent', '2 dropped claim_gone', '3 dropped claim_failed']);
    assert.equal(target.requests.length, 1);
    assert.deepEqual(scene.warnings, []);
  });

  it('waits for the announcement of an ingress that has only just come', async () => {
    const headers = { 'x-gateway-ingress': 'ingress-1' };
    await using target = await startEngine(() => respond(200, 'ok'));
    await using holder = await startEngine(() => respond(200, 'body', { headers }));
    await using scene = await Scene.start();
    scene.send(target.url, { claim: { url: `${holder.url}/claims/1`, token: 't', bytes: 4 } }, '');
    await until(async () => (await scene.metrics()).value('llm_gateway_mirror_sender_in_flight') === 1);
    scene.announce(holder.url);
    assert.deepEqual(await scene.ends(1), ['1 sent']);
  });

  it('fetches from nowhere but where the ingress of the copy announced to be', async () => {
    await using target = await startEngine(() => respond(200, 'ok'));
    await using holder = await startEngine(() =>
      respond(200, 'body', { headers: { 'x-gateway-ingress': 'ingress-1' } }),
    );
    await using inside = await startEngine(() => respond(200, 'body'));
    await using scene = await Scene.start({ mirrorQueueSize: 20 });
    scene.announce(holder.url);
    // Nobody can move an ingress that is there.
    scene.announce(inside.url);
    const urls = [
      `${inside.url}/claims/1`,
      `${holder.url}/claims/1`,
      `${holder.url}/claims/3?q`,
      `${holder.url}/other/4`,
      `${holder.url.replace('//', '//user@')}/claims/5`,
      `${holder.url}@example.com/claims/6`,
      'not a url',
    ];
    for (const [at, url] of urls.entries()) {
      scene.send(target.url, { copy: at + 1, claim: { url, token: 't', bytes: 4 } }, '');
    }
    await scene.ends(urls.length);
    assert.ok(scene.told.every(({ outcome, reason }) => outcome === 'dropped' && reason === 'claim_refused'));
    assert.deepEqual([inside.requests.length, holder.requests.length, target.requests.length], [0, 0, 0]);
    scene.told.length = 0;
    scene.send(target.url, { copy: 9, claim: { url: `${holder.url}/claims/9`, token: 't', bytes: 4 } }, '');
    assert.deepEqual(await scene.ends(1), ['9 sent']);
    assert.deepEqual(
      scene.warnings.map(({ reason }) => reason),
      ['conflict', 'unknown_ingress'],
    );
  });

  it('takes nothing for a body that its ingress did not answer', async () => {
    await using target = await startEngine(() => respond(200, 'ok'));
    await using inside = await startEngine(() => respond(200, 'body'));
    await using scene = await Scene.start();
    scene.announce(inside.url);
    scene.send(target.url, { claim: { url: `${inside.url}/claims/1`, token: 't', bytes: 4 } }, '');
    assert.deepEqual(await scene.ends(1), ['1 dropped claim_refused']);
    assert.equal(target.requests.length, 0);
  });

  it('sends nothing to a target that it may not send to', async () => {
    await using target = await startEngine(() => respond(200, 'ok'));
    await using other = await startEngine(() => respond(200, 'ok'));
    await using scene = await Scene.start({ mirrorAllowedTargets: target.url });
    scene.send(other.url, { copy: 1 });
    scene.send(target.url, { copy: 2 });
    assert.deepEqual(await scene.ends(2), ['1 dropped target_refused', '2 sent']);
    assert.equal(other.requests.length, 0);
  });

  it('survives copies that could never have been sent', async () => {
    await using target = await startEngine(() => respond(200, 'ok'));
    await using scene = await Scene.start({ mirrorQueueSize: 20 });
    const hostile: Partial<MirrorCopy>[] = [
      ...[
        '',
        'nonsense',
        'http://',
        'http:///x',
        'ftp://h/x',
        'http://h:99999/x',
        'http://[::1/x',
        '//h/x',
        'http://h',
      ].map((url) => ({ url })),
      { headers: [['a b', 'c']] },
      { headers: [['x', 'a\r\nb: c']] },
      { headers: [['content-length', '7']] },
      { headers: [['transfer-encoding', 'chunked']] },
      { method: 'BAD METHOD' },
      { method: '' },
      { method: 'CONNECT' },
    ];
    for (const [at, change] of hostile.entries()) scene.send(target.url, { copy: at + 1, ...change });
    await scene.ends(hostile.length);
    assert.deepEqual(
      scene.told.filter(({ outcome }) => outcome === 'sent'),
      [],
    );
    scene.told.length = 0;
    scene.send(target.url, { copy: 99 });
    assert.deepEqual(await scene.ends(1), ['99 sent']);
  });

  it("compares a copy's answer with its primary's, as metrics and a log line", async () => {
    await using engine = await startEngine(() => completion({ tokens: ['a', 'b'], gapMs: 5 }));
    await using scene = await Scene.start();
    scene.send(engine.url, { copy: 3, requestId: 'req-3', compare: true }, '{"stream":true}');
    await scene.ends(1);
    const answer = { status: 500, timeToFirstByteMs: 30, durationMs: 40, bytes: 50, finishReason: 'length' };
    scene.bus.publish(mirrorPrimary, { requestId: 'req-3', ingress: 'ingress-1', copy: 3, ...answer });
    await until(() => scene.logs.length === 1);
    const line = JSON.stringify(scene.logs[0]);
    assert.match(line, /"requestId":"req-3"/);
    assert.match(line, /"primary":{"status":500,"firstByteMs":30,"durationMs":40,"bytes":50,"finishReason":"length"}/);
    assert.match(line, /"shadow":{"status":200,.*"finishReason":"stop"}/);
    const reading = await scene.metrics();
    const value = (name: string, labels: Record<string, string>) =>
      reading.value(`llm_gateway_mirror_compare_${name}`, labels);
    assert.equal(value('statuses_total', { primary: '5xx', shadow: '2xx' }), 1);
    assert.equal(value('finish_reasons_total', { primary: 'length', shadow: 'stop' }), 1);
    assert.equal(value('response_bytes_sum', { side: 'primary' }), 50);
    assert.equal(value('time_to_first_byte_seconds_count', { side: 'shadow' }), 1);
    assert.equal(value('duration_seconds_sum', { side: 'primary' }), 0.04);
  });

  it('counts the statuses of copies that got no whole answer, but neither their times nor their sizes', async () => {
    await using engine = await startEngine();
    await using scene = await Scene.start();
    const scripts: readonly Script[] = [
      () => cut('before-head', { how: 'reset' }),
      () => cut({ afterBytes: 2 }, { body: 'data', headers: { 'content-length': 9 } }),
      () => stall('after-head'),
      () => respond(404, 'no such model'),
    ];
    for (const [copy, script] of scripts.entries()) {
      engine.script = script;
      scene.send(engine.url, { copy, compare: true, timeoutMs: 500 });
      await scene.ends(copy + 1);
      const answer = { status: 200, timeToFirstByteMs: 30, durationMs: 40, bytes: 50, finishReason: 'stop' };
      scene.bus.publish(mirrorPrimary, { requestId: `r-${copy}`, ingress: 'ingress-1', copy, ...answer });
    }
    await until(() => scene.logs.length === scripts.length);
    const reading = await scene.metrics();
    const value = (name: string, labels: Record<string, string>) =>
      reading.value(`llm_gateway_mirror_compare_${name}`, labels);
    assert.equal(value('statuses_total', { primary: '2xx', shadow: 'none' }), 1);
    assert.equal(value('statuses_total', { primary: '2xx', shadow: '2xx' }), 2);
    assert.equal(value('statuses_total', { primary: '2xx', shadow: '4xx' }), 1);
    for (const side of ['primary', 'shadow']) {
      for (const name of ['time_to_first_byte_seconds', 'duration_seconds', 'response_bytes']) {
        assert.equal(value(`${name}_count`, { side }), 1, `${name} of ${side}`);
      }
    }
    assert.equal(value('response_bytes_sum', { side: 'shadow' }), 'no such model'.length);
  });

  it('counts the copies whose primary it does not hear of: in time, or before it ends', async () => {
    await using engine = await startEngine(({ index }) => (index < 2 ? respond(200, 'ok') : stall('before-head')));
    await using hasty = await Scene.start({ mirrorCompareWaitMs: 1 });
    await using patient = await Scene.start();
    const unpaired = async (scene: Scene, reason?: string) =>
      (await scene.metrics()).value('llm_gateway_mirror_compare_unpaired_total', reason ? { reason } : {});
    hasty.send(engine.url, { compare: true });
    await until(async () => (await unpaired(hasty, 'expired')) === 1);

    patient.send(engine.url, { copy: 1, compare: true });
    await patient.ends(1);
    patient.send(engine.url, { copy: 2, compare: true });
    await engine.request(2);
    await patient.stop(50);
    assert.deepEqual(await patient.ends(2), ['1 sent', '2 failed shutdown']);
    assert.equal(await unpaired(patient, 'shutdown'), 2);
    assert.equal((await patient.metrics()).value('llm_gateway_mirror_compare_waiting'), 0);
    for (const scene of [hasty, patient]) assert.equal(await unpaired(scene), scene === hasty ? 1 : 2);
  });

  it('takes the wait of a copy off its time, and drops those that have none left', async () => {
    const answerMs = 3000;
    await using engine = await startEngine(({ index }) =>
      index === 0 ? respond(200, 'ok', { delayMs: answerMs }) : stall('before-head'),
    );
    await using scene = await Scene.start({ mirrorMaxConcurrency: 1 });
    scene.send(engine.url, { copy: 1 });
    scene.send(engine.url, { copy: 2, timeoutMs: 100 });
    const timeoutMs = 4000;
    scene.send(engine.url, { copy: 3, timeoutMs, log: true });
    assert.deepEqual(await scene.ends(3), ['1 sent', '2 dropped timeout', '3 failed timeout']);
    assert.equal(engine.requests.length, 2);
    const durationMs = Number(scene.logs[0]?.durationMs);
    assert.ok(durationMs < timeoutMs - answerMs / 2, `${durationMs} ms`);
  });

  it('finishes what it holds before it ends', async () => {
    await using engine = await startEngine(() => respond(200, 'ok', { delayMs: 200 }));
    await using scene = await Scene.start({ mirrorMaxConcurrency: 1 });
    for (const copy of [1, 2, 3]) scene.send(engine.url, { copy });
    await engine.request(0);
    await scene.stop(30_000);
    assert.deepEqual(await scene.ends(3), ['1 sent', '2 sent', '3 sent']);
  });

  it('cuts what does not finish in time, and still tells', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    await using scene = await Scene.start({ mirrorMaxConcurrency: 1 });
    for (const copy of [1, 2]) scene.send(engine.url, { copy });
    await engine.request(0);
    await scene.stop(50);
    assert.deepEqual(await scene.ends(2), ['1 failed shutdown', '2 dropped shutdown']);
  });
});

describe('mirror-senders over NATS', { timeout: 120_000 }, () => {
  it('share the copies, none is sent twice, and one that leaves loses nothing', async () => {
    await using nats = await startNats();
    await using engine = await startEngine(() => respond(200, 'ok'));
    const connect = (name: string) => connectNats({ natsServers: nats.url }, { name });
    await using ingress = connect('ingress');
    await using left = connect('mirror-sender');
    await using right = connect('mirror-sender');
    await until(() => ingress.connected && left.connected && right.connected, { timeoutMs: 30_000 });
    await using stays = await Scene.start({ mirrorQueueSize: 10_000 }, left);
    await using leaves = await Scene.start({ mirrorQueueSize: 10_000 }, right);

    // Until both are members: the server learns of a subscription some time after it is made.
    let copy = 0;
    const send = () => {
      copy += 1;
      const headers: [string, string][] = [['x-copy', String(copy)]];
      const fields = { requestId: 'r', ingress: 'ingress-1', copy, method: 'POST', url: `${engine.url}/`, headers };
      ingress.send(mirrorSend, { ...fields, timeoutMs: 0, log: false, compare: false }, Buffer.from('{}'));
    };
    const received = async (scene: Scene) => (await scene.metrics()).value('llm_gateway_mirror_sender_received_total');
    await until(async () => {
      send();
      return (await received(stays)) > 0 && (await received(leaves)) > 0;
    });
    const unheard = copy - (await received(stays)) - (await received(leaves));
    for (let i = 0; i < 300; i++) send();
    await until(async () => (await received(leaves)) >= 50, { timeoutMs: 30_000, what: 'the copies are shared' });
    for (let i = 0; i < 300; i++) send();
    await leaves.stop(30_000);
    await until(async () => (await received(stays)) + (await received(leaves)) >= copy - unheard, {
      timeoutMs: 30_000,
    });
    await until(() => engine.requests.length >= copy - unheard);
    const sent = engine.requests.map(({ headers }) => headers['x-copy']);
    assert.equal(new Set(sent).size, sent.length);
  });
});
