import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import {
  completion,
  type Engine,
  readMetrics,
  type Service,
  startEngine,
  startService,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

const row = (name: string, fields: object) => ({
  ...{ name, hash: `sha256:${createHash('sha256').update(`sk-gw-${name}`).digest('hex')}` },
  ...fields,
});
const places = 4;

/** An engine that answers a request only when it is told to. */
class HeldEngine {
  readonly engine: Engine;
  /** Those that it has, the oldest first. */
  readonly #held: (() => void)[] = [];
  mostAtOnce = 0;

  constructor(engine: Engine) {
    this.engine = engine;
    engine.script = () => async (exchange) => {
      this.mostAtOnce = Math.max(this.mostAtOnce, engine.live);
      await new Promise<void>((resolve) => {
        this.#held.push(resolve);
        exchange.signal.addEventListener('abort', () => this.#drop(resolve));
      });
      exchange.head(200, { 'content-type': 'application/json' });
      exchange.response.end('{}');
    };
  }

  get held(): number {
    return this.#held.length;
  }

  /** Answers the oldest ones. */
  answer(count: number): void {
    for (const answer of this.#held.splice(0, count)) answer();
  }

  #drop(resolve: () => void): void {
    resolve();
    const at = this.#held.indexOf(resolve);
    if (at !== -1) this.#held.splice(at, 1);
  }
}

const waiting = async (ingress: Service | undefined, labels: Record<string, string> = {}) =>
  (await ingress?.metrics())?.value('llm_gateway_queue_requests', labels) ?? 0;

describe('requests for instances that are full, over two ingresses', { timeout: 120_000 }, () => {
  const keys = join(temporaryFolder(), 'keys.json');
  let gateway: Gateway;
  let engine: Engine;
  let held: HeldEngine;
  let answers: Promise<number>[] = [];

  const send = (name: string, at: number, signal?: AbortSignal) => {
    const { url } = gateway.ingress[at % 2] ?? gateway;
    const headers = { 'x-api-key': `sk-gw-${name}`, 'x-sender': name };
    const answer = post(url, chat(), { headers, ...(signal && { signal }) }).then(async (response) => {
      await response.arrayBuffer();
      return response.status;
    });
    answers.push(answer);
    answer.catch(() => {});
    return answer;
  };
  const sendersFrom = (index: number) => engine.requests.slice(index).map(({ headers }) => headers['x-sender']);

  before(async () => {
    const rows = [
      row('person', { class: 'interactive' }),
      row('batch', { class: 'bulk' }),
      row('other', { class: 'bulk' }),
    ];
    writeFileSync(keys, JSON.stringify({ keys: rows }));
    engine = await startEngine();
    gateway = await startGateway({
      engines: [engine],
      replicas: { ingress: 2 },
      flags: {
        ingress: [
          ...['--client-keys', `@${keys}`, '--instance-max-requests', String(places)],
          ...['--queue-max-requests', '100', '--queue-max-wait-ms', '60000'],
        ],
      },
    });
  });
  beforeEach(async () => {
    held = new HeldEngine(engine);
    answers = [];
    await until(async () => {
      for (const ingress of gateway.ingress.slice(0, 2)) {
        const { value } = await ingress.metrics();
        if (value('llm_gateway_queue_ingresses') !== 2 || value('llm_gateway_queue_places_held') > 0) return false;
      }
      return true;
    });
  });
  afterEach(async () => {
    let settled = 0;
    const count = () => settled++;
    for (const answer of answers) answer.then(count, count);
    await until(() => {
      held.answer(places);
      return settled === answers.length;
    });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it('wait in the ingress, and those of people overtake ten times as many of a batch', async () => {
    const first = engine.requests.length;
    for (let at = 0; at < places; at++) void send('batch', at);
    await engine.request(first + places - 1);
    for (let at = 0; at < 40; at++) void send('batch', at);
    await until(async () => (await waiting(gateway.ingress[0])) + (await waiting(gateway.ingress[1])) === 40);
    for (let at = 0; at < 4; at++) void send('person', at);
    await until(async () => {
      const counts = gateway.ingress.map((ingress) => waiting(ingress, { class: 'interactive' }));
      return (await Promise.all(counts)).every((count) => count === 2);
    });
    held.answer(places);
    await engine.request(first + 2 * places - 1);
    // What the engine received next, by its own count.
    assert.deepEqual(sendersFrom(first).slice(places, 2 * places), ['person', 'person', 'person', 'person']);
    // The rest of the batch goes on, as the engine has room for it.
    for (let answered = 2 * places; answered <= 48; answered += places) {
      await until(() => held.held === places || engine.requests.length === first + 48);
      held.answer(places);
    }
    assert.deepEqual(
      (await Promise.all(answers)).filter((status) => status !== 200),
      [],
    );
    assert.ok(held.mostAtOnce <= places, `${held.mostAtOnce} at once`);
  });

  it('are served by who had less: a client with one request does not wait for all of another', async () => {
    const first = engine.requests.length;
    for (let at = 0; at < places + 20; at++) void send('batch', 2 * at);
    await until(async () => (await waiting(gateway.ingress[0])) === 20);
    void send('other', 0);
    await until(async () => (await waiting(gateway.ingress[0])) === 21);
    held.answer(1);
    await engine.request(first + places);
    assert.equal(engine.requests[first + places]?.headers['x-sender'], 'other');
  });

  it('free their place when the client leaves, also while they wait', async () => {
    const first = engine.requests.length;
    const leaving = new AbortController();
    const waitingClient = new AbortController();
    void send('batch', 0, leaving.signal);
    await engine.request(first);
    for (let at = 1; at < places; at++) void send('batch', 0);
    await engine.request(first + places - 1);
    void send('batch', 0, waitingClient.signal);
    await until(async () => (await waiting(gateway.ingress[0])) === 1);
    void send('other', 0);
    await until(async () => (await waiting(gateway.ingress[0])) === 2);
    waitingClient.abort();
    await until(async () => (await waiting(gateway.ingress[0])) === 1);
    leaving.abort();
    const next = await engine.request(first + places);
    assert.equal(next.headers['x-sender'], 'other');
    const cancelled = await gateway.ingress[0]?.metrics();
    assert.ok((cancelled?.value('llm_gateway_cancellations_total', { phase: 'queued' }) ?? 0) >= 1);
  });

  it('have the places of an ingress that died', async () => {
    const doomed = gateway.ingress[1];
    for (let at = 0; at < 60; at++) void send('batch', at);
    await until(async () => {
      const shares = await Promise.all(gateway.ingress.map((one) => one.metrics()));
      if (shares.every(({ value }) => value('llm_gateway_queue_places_held') === places / 2)) return true;
      // Who came first may have had more.
      held.answer(1);
      return false;
    });
    await doomed?.kill('SIGKILL');
    await until(() => engine.live === places && held.held === places, { timeoutMs: 8000 });
    assert.equal((await gateway.ingress[0]?.metrics())?.value('llm_gateway_queue_places_held'), places);
    // Shares are no leases: while they change, a message that is late may give a place twice.
    assert.ok(held.mostAtOnce <= places + 1, `${held.mostAtOnce} at once`);
  });
});

describe('requests for an instance that is full', { timeout: 60_000 }, () => {
  const flags = ['--drain-delay-ms', '0', '--instance-max-requests', '1', '--queue-max-requests', '2'];

  it('are answered 429 when no more may wait, and when they waited too long', async () => {
    await using engine = await startEngine();
    const held = new HeldEngine(engine);
    await using gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', engine.address, '--queue-max-wait-ms', '1500', ...flags],
    ]);
    const served = post(gateway.url, chat());
    await engine.request(0);
    const late = [post(gateway.url, chat()), post(gateway.url, chat())];
    await until(async () => (await waiting(gateway)) === 2);
    const full = await post(gateway.url, chat());
    for (const [response, code] of [
      [full, 'queue_full'],
      [await late[0], 'queue_timeout'],
      [await late[1], 'queue_timeout'],
    ] as const) {
      assert.equal(response?.status, 429);
      const retryAfter = Number(response?.headers.get('retry-after'));
      assert.ok(Number.isInteger(retryAfter) && retryAfter >= 1 && retryAfter <= 60, String(retryAfter));
      assert.ok(response);
      const { error } = (await response.json()) as { error: { code: string; type: string } };
      assert.deepEqual([error.code, error.type], [code, 'rate_limit_error']);
    }
    held.answer(1);
    assert.equal((await served).status, 200);
    assert.equal(engine.requests.length, 1);
    const { value } = await gateway.metrics();
    assert.equal(value('llm_gateway_queue_refused_requests_total', { cause: 'full' }), 1);
    assert.equal(value('llm_gateway_queue_refused_requests_total', { cause: 'timeout' }), 2);
    assert.equal(value('llm_gateway_queue_places_held'), 0);
  });

  it('go to the fallback chain after --spill-after-ms, or at once when no more may wait', async () => {
    await using engine = await startEngine();
    const held = new HeldEngine(engine);
    await using fallback = await startEngine(() => completion());
    const routes = [
      { prefix: '*', base_url: 'local', weight: 1, fallback: false },
      { prefix: '*', base_url: fallback.url, fallback: true },
    ];
    await using gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', engine.address, '--queue-max-wait-ms', '30000', '--spill-after-ms', '200'],
      ...['--route-policy', 'prefix', '--route-config', JSON.stringify(routes), '--expose-route-headers', ...flags],
    ]);
    const served = post(gateway.url, chat());
    await engine.request(0);
    const spilled = await Promise.all([1, 2, 3].map(() => post(gateway.url, chat())));
    for (const response of spilled) {
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('x-gateway-route'), 'fallback');
      await response.arrayBuffer();
    }
    held.answer(1);
    assert.equal((await served).headers.get('x-gateway-route'), 'internal');
    assert.deepEqual([engine.requests.length, fallback.requests.length], [1, 3]);
    assert.equal((await gateway.metrics()).value('llm_gateway_queue_spilled_requests_total'), 3);
  });

  it('hold one place over their retries, and give it back when they go to a fallback', async () => {
    await using engine = await startEngine(() => (exchange) => {
      exchange.head(500);
      exchange.end();
    });
    await using fallback = await startEngine();
    const atFallback = new HeldEngine(fallback);
    const routes = [
      { prefix: '*', base_url: 'local', weight: 1, fallback: false },
      { prefix: '*', base_url: fallback.url, fallback: true },
    ];
    await using gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', engine.address, '--queue-max-wait-ms', '30000', '--retry-max-count', '2'],
      ...['--route-policy', 'prefix', '--route-config', JSON.stringify(routes), ...flags],
    ]);
    const first = post(gateway.url, chat());
    await until(() => atFallback.held === 1);
    assert.equal(engine.requests.length, 3);
    assert.equal((await gateway.metrics()).value('llm_gateway_queue_places_held'), 0);
    // Its place is free: the next one does not wait.
    const second = post(gateway.url, chat());
    await until(() => atFallback.held === 2);
    atFallback.answer(2);
    assert.deepEqual([(await first).status, (await second).status], [200, 200]);
  });

  it('all go to it at once without --queue-max-requests', async () => {
    await using engine = await startEngine();
    const held = new HeldEngine(engine);
    await using gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', engine.address, '--drain-delay-ms', '0'],
    ]);
    const answers = Array.from({ length: 20 }, () =>
      post(gateway.url, chat(), { headers: { 'x-gateway-class': 'bulk' } }),
    );
    await until(() => held.held === 20);
    held.answer(20);
    for (const answer of answers) assert.equal((await answer).status, 200);
    assert.equal(engine.requests[0]?.headers['x-gateway-class'], 'bulk');
    const { samples } = await gateway.metrics();
    assert.deepEqual(
      samples.filter(({ name }) => name.startsWith('llm_gateway_queue_')).map(({ name }) => name),
      [],
    );
  });
});

describe('requests for engines that report their load', { timeout: 60_000 }, () => {
  it('wait in the ingress once some wait at the engine, and not while nobody reports', async () => {
    // Two at once, for some time each: the third and those after it wait wherever they are.
    const pace = ['--max-concurrency', '2', '--time-to-first-token-ms', '10', '--inter-token-ms', '20'];
    await using engine = await startService('engine-simulator', [...pace, '--response-tokens', '30']);
    const looks = ['--engine-metrics-interval-ms', '200'];
    await using gateway = await startGateway({
      flags: {
        discovery: [
          ...['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', new URL(engine.url).host, ...looks],
        ],
        ingress: ['--queue-max-requests', '100'],
      },
    });
    const body = chat({ model: 'simulated' });
    const atEngine = async () => {
      const { value } = await readMetrics(`${engine.url}/metrics`);
      return value('vllm:num_requests_running') + value('vllm:num_requests_waiting');
    };
    const places = async () => (await gateway.ingress[0]?.metrics())?.value('llm_gateway_queue_places') ?? 0;

    const send = (count: number) =>
      Array.from({ length: count }, () =>
        post(gateway.url, body).then(
          ({ status }) => status,
          () => 0,
        ),
      );
    const first = send(6);
    // Nothing is known of the engine yet: it gets all.
    await until(async () => (await atEngine()) === 6);
    await until(async () => (await places()) > 0);
    const next = send(12);
    await until(async () => (await waiting(gateway.ingress[0])) >= 8);
    let most = 0;
    await until(async () => {
      const { value } = await readMetrics(`${engine.url}/metrics`);
      // Those that came before the first report are served first.
      if ((await places()) <= 3) most = Math.max(most, value('vllm:num_requests_waiting'));
      return (await waiting(gateway.ingress[0])) <= 2;
    });
    // Without a queue ten of the twelve would; reports are 200 ms old at most when a place is given.
    assert.ok(most <= 5, `${most} wait at the engine`);
    for (const status of await Promise.all([...first, ...next])) assert.equal(status, 200);

    // Its reports end with discovery: it counts as unknown, and nobody waits.
    await gateway.discovery[0]?.kill('SIGKILL');
    await until(async () => (await places()) === 0, { timeoutMs: 8000 });
    const last = send(4);
    await until(async () => (await atEngine()) === 4);
    assert.equal(await waiting(gateway.ingress[0]), 0);
    for (const status of await Promise.all(last)) assert.equal(status, 200);
  });
});
