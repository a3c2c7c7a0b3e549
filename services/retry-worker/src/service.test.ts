import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Bus, inProcessBus } from '@llm-gateway/bus';
import {
  decodeJobProgress,
  decodeJobResult,
  encodeJobRequest,
  type GatewayError,
  type JobProgress,
  type ReportedJobResult,
  type RetryOffer,
  type RetryReply,
  retryOffer,
} from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import { describeSelf, Metrics, type Running } from '@llm-gateway/runtime';
import {
  cut,
  type Engine,
  freePort,
  type MetricsReading,
  parseMetrics,
  refuse,
  respond,
  type Script,
  stall,
  startEngine,
  stream,
  until,
} from '@llm-gateway/testing';
import type { Options } from './options.ts';
import { start } from './service.ts';

const describeIt = describeSelf({ service: 'retry-worker', version: '0.0.0', shown: [], readiness: () => 'ready' });

const usual: Omit<Options, 'routeConfig'> = {
  fallbackRetryQueueSize: 100,
  fallbackRetryWorkerSize: 10,
  fallbackRetryMaxCount: 3,
  fallbackRetryInitDelayMs: 20,
  fallbackRetryMaxDelayMs: 100,
  fallbackRetryMaxHeldBytes: 1_000_000,
  internalHost: '127.0.0.1',
  internalPort: 0,
  advertiseHost: '127.0.0.1',
  configRefreshIntervalMs: 1000,
  routePolicy: 'weight',
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 60_000,
  upstreamIdleTimeoutMs: 60_000,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 0,
  commitAt: 'content',
  commitHoldMs: 20,
};
const limited = () => refuse(429, { message: 'slow down' });

/** A worker on a bus of its own, an endpoint, and what an ingress does. */
class Scene implements AsyncDisposable {
  readonly bus: Bus = inProcessBus();
  readonly engine: Engine;
  readonly logs: Record<string, unknown>[] = [];
  readonly #metrics = new Metrics();
  readonly #shutdown = new AbortController();
  readonly #generation: string;
  #running: Running | undefined;

  private constructor(engine: Engine, generation: string) {
    this.engine = engine;
    this.#generation = generation;
  }

  static async start(script: Script, change: Partial<Options> & { baseUrl?: string } = {}): Promise<Scene> {
    const engine = await startEngine(script);
    const { baseUrl = `${engine.url}/v1`, ...changed } = change;
    const routeConfig = JSON.stringify([{ base_url: baseUrl, api_key: 'our-key', fallback: true }]);
    const reading = readRouteTable('weight', routeConfig, () => '');
    assert.ok('table' in reading);
    const scene = new Scene(engine, reading.table.generation);
    const log = {
      info: (fields: object) => void scene.logs.push({ ...fields }),
      // That the one endpoint has no weight.
      warn: () => undefined,
      error: (fields: object) => assert.fail(JSON.stringify(fields)),
    };
    scene.#running = await start(
      { ...usual, routeConfig, ...changed },
      { bus: scene.bus, metrics: scene.#metrics, log, shutdown: scene.#shutdown.signal, describe: describeIt },
    );
    return scene;
  }

  offer(change: Partial<RetryOffer> = {}): Promise<RetryReply> {
    const offer: RetryOffer = {
      requestId: 'r',
      generation: this.#generation,
      endpoint: 0,
      retryAfterMs: null,
      deadlineMs: 60_000,
      calls: 0,
      maxCalls: null,
      bodyBytes: 2,
      ...change,
    };
    return this.bus.request(retryOffer, offer, { timeoutMs: 10_000 });
  }

  /** Offers a job that is accepted, and hands it over. */
  async job(change: Partial<RetryOffer> = {}, body: string | Buffer = '{}'): Promise<HandedOver> {
    const reply = await this.offer({ ...change, bodyBytes: Buffer.byteLength(body) });
    assert.ok(reply.accepted, 'the offer is accepted');
    return new HandedOver(reply, body);
  }

  async metrics(): Promise<MetricsReading> {
    return parseMetrics((await this.#metrics.exposition()).text);
  }

  async outcomes(): Promise<Record<string, number>> {
    const { samples } = await this.metrics();
    const counts = samples.filter(({ name }) => name === 'llm_gateway_retry_queue_outcomes_total');
    return Object.fromEntries(counts.map(({ labels, value }) => [labels.outcome, value]));
  }

  async depth(): Promise<{ waiting: number; calling: number }> {
    const metrics = await this.metrics();
    return {
      waiting: metrics.value('llm_gateway_retry_queue_depth'),
      calling: metrics.value('llm_gateway_retry_queue_calls_in_flight'),
    };
  }

  /** What SIGTERM sets going; resolves when it is drained. */
  async drain(): Promise<void> {
    this.#shutdown.abort();
    await this.#running?.drain?.(AbortSignal.timeout(20_000));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]();
    await this.bus[Symbol.asyncDispose]();
    await this.engine[Symbol.asyncDispose]();
  }
}

/** The ingress's side of one job. */
class HandedOver {
  /** What was new each time. */
  readonly told: { progress: JobProgress; atMs: number }[] = [];
  /** What was told once more. */
  readonly repeated: { progress: JobProgress; atMs: number }[] = [];
  readonly request: ClientRequest;
  readonly response: Promise<IncomingMessage>;
  readonly sentAtMs = performance.now();

  constructor(slot: { url: string; token: string }, body: string | Buffer, headers: string[] = []) {
    const client = ['host', 'worker', 'Authorization', 'Bearer client', 'X-Client', 'a', 'X-Client', 'b', ...headers];
    this.request = httpRequest(slot.url, {
      method: 'POST',
      agent: false,
      headers: encodeJobRequest([...client, 'content-length', String(Buffer.byteLength(body))], {
        token: slot.token,
        method: 'POST',
        target: '/v1/chat/completions?n=%31',
      }),
    });
    this.request.on('information', ({ rawHeaders }) => {
      const progress = decodeJobProgress(rawHeaders);
      assert.ok(progress);
      const last = this.told.at(-1)?.progress;
      const isRepeat = last?.phase === progress.phase && last.calls === progress.calls;
      (isRepeat ? this.repeated : this.told).push({ progress, atMs: performance.now() });
    });
    this.response = once(this.request, 'response').then(([response]) => response);
    this.response.catch(() => undefined);
    this.request.end(body);
  }

  async head(): Promise<{ response: IncomingMessage; result: ReportedJobResult | null }> {
    const response = await this.response;
    return { response, result: decodeJobResult(response.rawHeaders) };
  }

  async end(): Promise<{
    status: number;
    headers: IncomingMessage['headers'];
    body: Buffer;
    result: ReportedJobResult | null;
  }> {
    const { response, result } = await this.head();
    const chunks = [];
    for await (const chunk of response) chunks.push(chunk);
    return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks), result };
  }

  leave(): void {
    this.request.on('error', () => undefined).destroy();
  }
}

function inTurn(...answers: ReturnType<Script>[]): Script {
  return ({ index }) => answers[Math.min(index, answers.length - 1)] as ReturnType<Script>;
}

describe('a retry worker', { concurrency: true, timeout: 120_000 }, () => {
  it('makes the call that the ingress would make, again after each 429, and relays the answer as it comes', async () => {
    const pieces = ['data: ä\n\n', ': keep-alive\r\n\r\n', 'data: [DONE]\n\n'];
    await using scene = await Scene.start(inTurn(limited(), limited(), stream(pieces, { gapMs: 20 })));
    const body = Buffer.from([0x7b, 0xff, 0x00, 0x7d]);
    const job = await scene.job({}, body);
    const { status, headers, body: answer, result } = await job.end();

    assert.deepEqual(result, { kind: 'answered', calls: 3, cause: null });
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'text/event-stream; charset=utf-8');
    assert.equal(answer.toString(), pieces.join(''));
    assert.equal(scene.engine.requests.length, 3);
    for (const request of scene.engine.requests) {
      assert.equal(request.method, 'POST');
      assert.equal(request.url, '/v1/chat/completions?n=%31');
      assert.deepEqual(request.body, body);
      const names = request.rawHeaders.filter((_, i) => i % 2 === 0);
      assert.deepEqual(
        names.filter((name) => /^x-/i.test(name)),
        ['X-Client', 'X-Client'],
      );
      assert.deepEqual(request.headers.authorization, 'Bearer our-key');
      assert.equal(request.headers.host, scene.engine.address);
      assert.ok(!names.some((name) => name.toLowerCase().startsWith('x-gateway')));
    }
    assert.deepEqual(
      job.told.map(({ progress }) => `${progress.phase} ${progress.calls}`),
      ['waiting 0', 'calling 1', 'waiting 1', 'calling 2', 'waiting 2', 'calling 3'],
    );
    await until(async () => assert.deepEqual(await scene.outcomes(), { answered: 1 }) ?? true);
    const metrics = await scene.metrics();
    assert.equal(metrics.value('llm_gateway_retry_queue_calls_total', { outcome: 'limited' }), 2);
    assert.equal(metrics.value('llm_gateway_retry_queue_calls_total', { outcome: 'answered' }), 1);
    assert.equal(metrics.value('llm_gateway_retry_queue_wait_seconds_count'), 3);
    assert.equal(metrics.value('llm_gateway_retry_queue_held_bytes'), 0);
  });

  it('gives the last 429 with its Retry-After when the calls are used up', async () => {
    await using scene = await Scene.start(() => refuse(429, { message: 'no', retryAfterMs: 30 }));
    const { status, headers, body, result } = await (await scene.job({ calls: 1 })).end();
    assert.deepEqual(result, { kind: 'exhausted', calls: 3, cause: null });
    assert.equal(status, 429);
    assert.equal(headers['retry-after-ms'], '30');
    assert.match(body.toString(), /"no"/);
    assert.equal(scene.engine.requests.length, 2, 'calls of other workers count');
  });

  it('makes no more calls than the ingress allows', async () => {
    await using scene = await Scene.start(() => refuse(429, { retryAfterMs: 30 }));
    const { status, result } = await (await scene.job({ maxCalls: 2 })).end();
    assert.deepEqual([status, result], [429, { kind: 'limited', calls: 2, cause: null }]);
    assert.equal(scene.engine.requests.length, 2);
  });

  it('ends at once at any other failure, with the answer of the endpoint if there is one', async () => {
    await using answering = await Scene.start(inTurn(limited(), refuse(503, { message: 'down' })));
    const own = await (await answering.job()).end();
    assert.deepEqual(own.result, { kind: 'failed', calls: 2, cause: null });
    assert.equal(own.status, 503);
    assert.match(own.body.toString(), /down/);

    await using silent = await Scene.start(() => cut('after-head'));
    assert.deepEqual((await (await silent.job()).end()).result, { kind: 'failed', calls: 1, cause: 'truncated' });
    for (const status of [401, 403, 404, 408]) {
      await using refusing = await Scene.start(() => refuse(status));
      const { status: given, result } = await (await refusing.job()).end();
      assert.deepEqual([given, result], [status, { kind: 'failed', calls: 1, cause: null }]);
    }
    await using stalled = await Scene.start(() => stall('after-head'), { upstreamIdleTimeoutMs: 300 });
    assert.deepEqual((await (await stalled.job()).end()).result, { kind: 'failed', calls: 1, cause: 'idle_timeout' });
    const nobody = `http://127.0.0.1:${await freePort()}`;
    await using refused = await Scene.start(limited, { baseUrl: nobody });
    assert.deepEqual((await (await refused.job()).end()).result, { kind: 'failed', calls: 1, cause: 'refused' });
  });

  it('does not wait for the end of a failed answer that drips', async () => {
    const drip = () => stream(new Array(600).fill(' '), { status: 503, gapMs: 100, headers: { 'retry-after': '7' } });
    await using scene = await Scene.start(drip, { upstreamIdleTimeoutMs: 500 });
    const job = await scene.job();
    const { status, headers, body, result } = await job.end();
    assert.deepEqual([status, headers['retry-after'], body.length], [503, '7', 0]);
    assert.deepEqual(result, { kind: 'failed', calls: 1, cause: null });
    await until(() => scene.engine.requests[0]?.abandoned);
  });

  it('writes one call of a job once more when the endpoint closes a kept connection on it, and no other', async () => {
    // The first job warms the connection; of the second, the endpoint closes on the second call and
    // on the third.
    await using scene = await Scene.start(
      inTurn(respond(200), limited(), cut('before-head'), limited(), cut('before-head'), respond(200, 'not called')),
    );
    await (await scene.job()).end();
    const { result } = await (await scene.job()).end();
    assert.deepEqual(result, { kind: 'failed', calls: 3, cause: 'reset' });
    assert.equal(
      scene.engine.requests.length,
      5,
      'one for the first job; for the second its three calls, and one more',
    );
  });

  it("relays what is the client's own mistake", async () => {
    await using scene = await Scene.start(() => refuse(422));
    const { status, result } = await (await scene.job()).end();
    assert.deepEqual([status, result?.kind], [422, 'answered']);
  });

  it('never calls before the endpoint wants it', async () => {
    const date = new Date(Math.ceil(Date.now() / 1000) * 1000 + 2000);
    await using scene = await Scene.start(
      inTurn(refuse(429, { retryAfterMs: 300 }), refuse(429, { retryAfter: date }), respond(200)),
    );
    const job = await scene.job({ retryAfterMs: 200 });
    await job.end();
    const [first, second, third] = scene.engine.requests.map(({ receivedAt }) => receivedAt);
    assert.ok(first && second && third);
    assert.ok(first - job.sentAtMs >= 200, `what the first 429 asked for: ${first - job.sentAtMs}`);
    assert.ok(second - first >= 300, 'retry-after-ms');
    assert.ok(performance.timeOrigin + third >= date.getTime() - 2, 'an HTTP date');
    const asked = job.told.filter(({ progress }) => progress.phase === 'waiting');
    assert.equal(asked[0]?.progress.retryAfterMs, 200);
    assert.equal(asked[1]?.progress.retryAfterMs, 300);
  });

  it('begins no wait that would pass the deadline', async () => {
    await using scene = await Scene.start(() => refuse(429, { retryAfter: 60 }));
    const refusal = await scene.offer({ retryAfterMs: 5000, deadlineMs: 4000 });
    assert.deepEqual(refusal.accepted ? 'accepted' : refusal.reason, 'hopeless');
    const job = await scene.job({ deadlineMs: 30_000 });
    const { result } = await job.end();
    assert.deepEqual(result, { kind: 'exhausted', calls: 1, cause: null });
    assert.ok(performance.now() - job.sentAtMs < 10_000);
  });

  it('ends a call that passes the deadline before its answer begins', async () => {
    await using scene = await Scene.start(() => stall('before-head'));
    const { result } = await (await scene.job({ deadlineMs: 1500 })).end();
    assert.deepEqual(result, { kind: 'failed', calls: 1, cause: 'headers_timeout' });
  });

  it('ends a call that passes the deadline before the first byte of its answer', async () => {
    await using scene = await Scene.start(() => stall('after-head'));
    const job = await scene.job({ deadlineMs: 1500 });
    const { result } = await job.end();
    assert.deepEqual(result, { kind: 'failed', calls: 1, cause: 'headers_timeout' });
    assert.ok(performance.now() - job.sentAtMs < 5000, 'within what the ingress waits for it');
    await until(() => scene.engine.requests[0]?.abandoned);
  });

  it('tells each second that it still has a job, and what is left of what the endpoint asked for', async () => {
    await using scene = await Scene.start(() => stall('before-head'));
    const job = await scene.job({ retryAfterMs: 2500 });
    await scene.engine.request(0);
    await until(() => job.repeated.filter(({ progress }) => progress.phase === 'calling').length === 2);
    const [first, second] = job.repeated.map(({ progress }) => progress);
    assert.ok(first && second);
    assert.deepEqual([first.phase, first.calls, first.repeatMs], ['waiting', 0, 1000]);
    const passedMs = (first.retryAfterMs ?? 0) - (second.retryAfterMs ?? 0);
    assert.ok(passedMs > 500, `${passedMs} ms less`);
    assert.equal(job.repeated.at(-1)?.progress.calls, 1);
    job.leave();
  });

  it('takes as many jobs as its flags say, of which so many call, and leaves the group while it is full', async () => {
    let most = 0;
    await using scene = await Scene.start(
      () => async (exchange) => {
        most = Math.max(most, scene.engine.live);
        await exchange.delay(100);
        await respond(200, 'ok')(exchange);
      },
      { fallbackRetryQueueSize: 3, fallbackRetryWorkerSize: 2 },
    );
    const jobs = [];
    for (let n = 0; n < 5; n++) jobs.push(await scene.job());
    await assert.rejects(scene.offer(), (error: GatewayError) => error.code === 'bus_no_responders');
    await until(async () => assert.deepEqual(await scene.depth(), { waiting: 3, calling: 2 }) ?? true);
    assert.ok((await scene.metrics()).value('llm_gateway_retry_queue_oldest_age_seconds') > 0);
    for (const job of jobs) assert.equal((await job.end()).status, 200);
    assert.equal(most, 2);
    await until(async () => assert.deepEqual(await scene.depth(), { waiting: 0, calling: 0 }) ?? true);
    assert.equal((await (await scene.job()).end()).status, 200, 'it has joined again');
    const metrics = await scene.metrics();
    assert.equal(metrics.value('llm_gateway_retry_queue_offers_total', { result: 'accepted' }), 6);
    assert.equal(metrics.value('llm_gateway_retry_queue_oldest_age_seconds'), 0);
  });

  it('holds no slot while a job waits', async () => {
    await using scene = await Scene.start(
      ({ index }) => (index === 0 ? refuse(429, { retryAfterMs: 1000 }) : respond(200)),
      { fallbackRetryWorkerSize: 1 },
    );
    const slow = await scene.job();
    await scene.engine.request(0);
    const quick = await scene.job();
    await quick.end();
    assert.ok(
      slow.told.every(({ progress }) => progress.calls < 2),
      'the first one is still waiting',
    );
    assert.equal((await slow.end()).result?.calls, 2);
  });

  it('refuses a body that is too large for it, but not a smaller one', async () => {
    await using scene = await Scene.start(() => respond(200), { fallbackRetryMaxHeldBytes: 100 });
    const refusal = await scene.offer({ bodyBytes: 101 });
    assert.equal(refusal.accepted ? 'accepted' : refusal.reason, 'full');
    assert.equal((await (await scene.job({}, 'x'.repeat(100))).end()).status, 200);
    const lied = await scene.offer({ bodyBytes: 10 });
    assert.ok(lied.accepted);
    const job = new HandedOver(lied, 'x'.repeat(11));
    await assert.rejects(job.response);
    await until(async () => (await scene.outcomes()).cancelled === 1);
  });

  it('refuses the endpoints of another route config, and answers nothing when it may not call', async () => {
    await using scene = await Scene.start(() => respond(200));
    const refusal = await scene.offer({ generation: 'other' });
    assert.equal(refusal.accepted ? 'accepted' : refusal.reason, 'generation');
    await using disabled = await Scene.start(() => respond(200), { fallbackRetryMaxCount: 0 });
    await assert.rejects(disabled.offer(), (error: GatewayError) => error.code === 'bus_no_responders');
  });

  it('calls on and on when the number of calls is not limited', async () => {
    await using scene = await Scene.start(({ index }) => (index < 7 ? limited() : respond(200)), {
      fallbackRetryMaxCount: -1,
      fallbackRetryInitDelayMs: 10,
      fallbackRetryMaxDelayMs: 20,
    });
    assert.deepEqual((await (await scene.job()).end()).result, { kind: 'answered', calls: 8, cause: null });
  });

  it('gives nothing to those without the token, and takes it once', async () => {
    await using scene = await Scene.start(() => respond(200));
    const slot = await scene.offer();
    assert.ok(slot.accepted);
    const forged = new HandedOver({ ...slot, token: 'x'.repeat(slot.token.length) }, '{}');
    assert.equal((await forged.end()).status, 404);
    const without = await fetch(slot.url, { method: 'POST', body: '{}' });
    assert.deepEqual([without.status, await without.text()], [404, '']);
    assert.equal((await fetch(new URL('/', slot.url))).status, 404);
    assert.equal((await new HandedOver(slot, '{}').end()).status, 200);
    assert.equal((await new HandedOver(slot, '{}').end()).status, 404);
    assert.equal(scene.engine.requests.length, 1);
  });

  it('gives a slot back when the ingress does not come for it', async () => {
    await using scene = await Scene.start(() => respond(200), {
      fallbackRetryQueueSize: 0,
      fallbackRetryWorkerSize: 1,
    });
    assert.ok((await scene.offer()).accepted);
    await assert.rejects(scene.offer());
    await until(async () => (await scene.offer()).accepted, { timeoutMs: 20_000, intervalMs: 200 });
    assert.equal((await scene.outcomes()).expired, 1);
  });

  it('stops when the ingress leaves: waiting, calling and within the answer', async () => {
    await using scene = await Scene.start(
      ({ index }) => (index === 0 ? stall('before-head') : stream(['a', 'b', 'c', 'd'], { gapMs: 300 })),
      { fallbackRetryInitDelayMs: 400, fallbackRetryMaxDelayMs: 400 },
    );
    const waiting = await scene.job();
    await until(() => waiting.told.length === 1);
    waiting.leave();
    await until(async () => (await scene.outcomes()).cancelled === 1);

    const calling = await scene.job();
    await scene.engine.request(0);
    calling.leave();
    await until(() => scene.engine.requests[0]?.abandoned);

    const streaming = await scene.job();
    await once((await streaming.head()).response, 'data');
    streaming.leave();
    await until(() => scene.engine.requests[1]?.abandoned);
    await delay(600);
    assert.equal(scene.engine.requests.length, 2, 'the job that waited was never called');
    assert.deepEqual(await scene.outcomes(), { cancelled: 3 });
    assert.deepEqual(await scene.depth(), { waiting: 0, calling: 0 });
  });

  it('hands back what waits and finishes what calls when it ends', async () => {
    const answers: ReturnType<Script>[] = [
      refuse(429, { retryAfterMs: 70_000 }),
      respond(200, 'late', { delayMs: 700 }),
      async (exchange) => {
        await exchange.delay(700);
        await refuse(429, { retryAfterMs: 5000 })(exchange);
      },
    ];
    await using scene = await Scene.start(inTurn(...answers));
    const waiting = await scene.job({ deadlineMs: 900_000 });
    await until(() => waiting.told.length === 3);
    const calling = await scene.job();
    await scene.engine.request(1);
    const limitedLater = await scene.job();
    await scene.engine.request(2);
    const reserved = await scene.offer();
    assert.ok(reserved.accepted);

    const drained = scene.drain();
    await assert.rejects(scene.offer(), (error: GatewayError) => error.code === 'bus_no_responders');
    assert.equal((await new HandedOver(reserved, '{}').end()).status, 404);
    assert.deepEqual((await waiting.end()).result, { kind: 'handed-back', calls: 1, cause: 'none' });
    assert.equal(waiting.told[2]?.progress.retryAfterMs, 70_000);
    assert.equal(scene.engine.live, 2, 'it does not wait for the calls');
    assert.deepEqual((await limitedLater.end()).result, { kind: 'handed-back', calls: 1, cause: 'none' });
    assert.equal(limitedLater.told.at(-1)?.progress.retryAfterMs, 5000);
    const finished = await calling.end();
    assert.deepEqual([finished.body.toString(), finished.result?.kind], ['late', 'answered']);
    await drained;
    assert.deepEqual(await scene.outcomes(), { handed_back: 3, answered: 1 });
  });

  it('breaks its connection, after all that came, when the answer breaks', async () => {
    const text = 'data: 1\n\ndata: 2\n\n';
    await using scene = await Scene.start(() => cut({ afterBytes: text.length }, { body: text, how: 'reset' }));
    const { response } = await (await scene.job()).head();
    let seen = '';
    response.on('data', (chunk) => {
      seen += chunk;
    });
    const [error] = await once(response, 'error');
    assert.equal(error.code, 'ECONNRESET');
    assert.equal(seen, text);
    await until(async () => (await scene.outcomes()).broken === 1);
  });

  it('slows the endpoint to the pace of the ingress, and loses nothing', async () => {
    const piece = Buffer.alloc(256 * 1024, 'x');
    await using scene = await Scene.start(() => stream(Array.from({ length: 80 }, () => piece)));
    const { response } = await (await scene.job()).head();
    await delay(500);
    assert.equal(scene.engine.requests[0]?.answeredAt, null, 'the endpoint has to wait');
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const chunk of response) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    assert.equal(bytes, 80 * piece.length);
    assert.equal(hash.digest('hex'), createHash('sha256').update(Buffer.alloc(bytes, 'x')).digest('hex'));
  });
});
