import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  cut,
  type Engine,
  type EngineRequest,
  refuse,
  respond,
  type Script,
  stall,
  startEngine,
  startService,
  stream,
  until,
} from '@llm-gateway/testing';
import { ask, begin } from './answer.ts';
import { chat, type Gateway, post } from './gateway.ts';
import { callsOf, endpointKey, held, limitedFirst, startQueue, sumOf, untilWaiting } from './queue.ts';

describe('a job of the 429 queue', { timeout: 180_000 }, () => {
  const stack = new AsyncDisposableStack();
  let first: Engine;
  let second: Engine;
  let gateway: Gateway;

  before(async () => {
    first = stack.use(await startEngine());
    second = stack.use(await startEngine(() => respond(200, 'second')));
    gateway = stack.use(
      await startQueue({
        endpoints: [first, second],
        workers: 1,
        worker: { 'init-delay-ms': 300, 'max-delay-ms': 400, 'max-count': 2 },
        workerFlags: ['--upstream-idle-timeout-ms', '1000'],
        ingress: ['--upstream-headers-timeout-ms', '20000'],
      }),
    );
  });
  after(() => stack.disposeAsync());

  it("takes a body of 3 MB, the client's headers and our key to the endpoint, byte for byte", async () => {
    first.script = limitedFirst(2, () =>
      respond(200, 'first', { headers: { 'x-endpoint': 'yes', 'x-gateway-job-end': 'no' } }),
    );
    const body = chat({ content: randomBytes(2_400_000).toString('base64') });
    assert.ok(body.length > 3_000_000);
    const response = await ask(gateway.url, {
      id: 'large',
      body,
      path: '/v1/chat/completions?a=%2F',
      headers: { authorization: 'Bearer client', 'x-client': '\u00e4', 'x-gateway-job-token': 'forged' },
    });
    assert.equal(response.text, 'first');
    assert.equal(response.headers.get('x-endpoint'), 'yes');
    assert.equal(response.headers.get('x-request-id'), 'large');
    assert.equal(response.headers.get('x-gateway-attempts'), '3');
    assert.deepEqual(
      [...response.headers.keys()].filter((name) => name.includes('-job-')),
      [],
    );
    const calls = first.requests.filter(({ headers }) => headers['x-request-id'] === 'large');
    assert.equal(calls.length, 3);
    for (const call of calls) {
      assert.ok(call.body.equals(Buffer.from(body)));
      assert.deepEqual([call.method, call.url], ['POST', '/v1/chat/completions?a=%2F']);
      assert.equal(call.headers.authorization, `Bearer ${endpointKey}`);
      assert.deepEqual(
        call.rawHeaders.filter((name) => !/^(connection|keep-alive|x-gateway-job-token|forged)$/.test(name)),
        calls[0]?.rawHeaders.filter((name) => !/^(connection|keep-alive|x-gateway-job-token|forged)$/.test(name)),
        'as the ingress itself sends it',
      );
    }
  });

  it("quotes no key of the endpoint's, and the client's own as it came", async () => {
    const quoting = (request: EngineRequest) =>
      respond(401, { error: { message: `${request.headers.authorization} is not Bearer of-the-client` } });
    first.script = limitedFirst(1, quoting);
    second.script = () => cut('before-head');
    const answer = await ask(gateway.url, { id: 'quoted', headers: { authorization: 'Bearer of-the-client' } });
    second.script = () => respond(200, 'second');
    assert.equal(callsOf(first, 'quoted'), 2, "the second call is the worker's");
    assert.equal(answer.status, 401);
    assert.deepEqual(JSON.parse(answer.text), { error: { message: 'Bearer *** is not Bearer of-the-client' } });
  });

  it('streams its answer as it is made', async () => {
    const events = Array.from({ length: 8 }, (_, n) => `data: ${n}\r\n\r\n`);
    first.script = limitedFirst(1, () => stream([...events, 'data: [DONE]\n\n'], { gapMs: 100 }));
    const response = await post(gateway.url, chat({ stream: true }), { headers: { 'x-request-id': 'stream' } });
    const at: number[] = [];
    let text = '';
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk);
      at.push(performance.now());
    }
    assert.equal(text, `${events.join('')}data: [DONE]\n\n`);
    assert.ok((at.at(-1) ?? 0) - (at[0] ?? 0) > 500, 'over time, not at the end');
    assert.equal(callsOf(first, 'stream'), 2);
  });

  it('waits as long as the endpoint asks for', async () => {
    first.script = limitedFirst(
      1,
      () => respond(200, 'first'),
      () => refuse(429, { retryAfter: 2 }),
    );
    assert.equal((await ask(gateway.url, { id: 'asked' })).text, 'first');
    const [limited, called] = first.requests.filter(({ headers }) => headers['x-request-id'] === 'asked');
    assert.ok((called?.receivedAt ?? 0) - (limited?.receivedAt ?? 0) >= 1990);
  });

  it('that is used up goes to the next fallback, and after the last one ends in the 429 with its body and Retry-After', async () => {
    first.script = () => refuse(429, { message: 'first is busy', retryAfter: 1 });
    assert.equal((await ask(gateway.url, { id: 'used-up' })).text, 'second');
    assert.equal(callsOf(first, 'used-up'), 3);

    await second.stop();
    const answer = await ask(gateway.url, { id: 'nothing-left' });
    await second.start();
    assert.equal(answer.status, 429);
    assert.match(answer.text, /first is busy/);
    assert.equal(answer.headers.get('retry-after'), '1');
    assert.equal(answer.headers.get('x-gateway-attempts'), '4', 'three calls of the first, one of the second');
  });

  it('that fails in any other way goes to the next fallback at once', async () => {
    const faults: Record<string, Script> = {
      refused: () => refuse(500),
      cut: () => cut('after-head'),
      reset: () => cut('before-head', { how: 'reset' }),
      'silent-after-its-head': () => stall('after-head'),
      ...Object.fromEntries([401, 403, 404, 408].map((status) => [`status-${status}`, () => refuse(status)])),
    };
    for (const [name, fault] of Object.entries(faults)) {
      first.script = limitedFirst(1, fault);
      assert.equal((await ask(gateway.url, { id: name })).text, 'second', name);
      assert.equal(callsOf(first, name), 2, name);
    }
  });

  it('that the endpoint wants to have later than the deadline is not begun', async () => {
    first.script = () => refuse(429, { retryAfter: 60 });
    const startedAt = performance.now();
    assert.equal((await ask(gateway.url, { id: 'too-late' })).text, 'second');
    assert.ok(performance.now() - startedAt < 5000);
    assert.equal(callsOf(first, 'too-late'), 1);
    assert.equal(await sumOf(gateway.ingress, 'retry_offers_total', { result: 'hopeless' }), 1);
  });

  it('whose client leaves is cancelled, waiting, calling or answering', async () => {
    const leave = async (id: string, when: (head: Promise<unknown>) => Promise<unknown>) => {
      const asked = begin(gateway.url, { id, stream: true });
      await when(asked.head);
      asked.leave();
    };
    const abandoned = (id: string) =>
      first.requests.filter(({ headers }) => headers['x-request-id'] === id).at(-1)?.abandoned;

    first.script = limitedFirst(1, () => respond(200, 'nobody reads this'));
    await leave('left-waiting', () => untilWaiting(gateway.others, 1));
    await until(
      async () => (await sumOf(gateway.others, 'retry_queue_outcomes_total', { outcome: 'cancelled' })) === 1,
    );

    first.script = limitedFirst(1, () => stall('before-head'));
    await leave('left-calling', () => until(() => callsOf(first, 'left-calling') === 2));
    await until(() => abandoned('left-calling'));

    first.script = limitedFirst(1, () => stall({ afterBytes: 9 }, { body: 'data: 1\n\n' }));
    await leave('left-answering', (head) => head);
    await until(() => abandoned('left-answering'));

    await sleep(600);
    assert.equal(callsOf(first, 'left-waiting'), 1, 'no call follows');
    for (const worker of gateway.others) assert.deepEqual(await held(worker), { waiting: 0, calling: 0 });
    const [ingress] = gateway.ingress;
    assert.equal((await ingress?.metrics())?.value('llm_gateway_cancellations_total', { phase: 'queued' }), 2);
    assert.equal((await ingress?.metrics())?.value('llm_gateway_cancellations_total', { phase: 'streaming' }), 1);
    assert.equal((await ingress?.metrics())?.value('llm_gateway_requests_in_flight'), 0);
  });
});

describe('the 429 queue in one process', { timeout: 120_000 }, () => {
  const flags = (endpoints: readonly Engine[], ...more: string[]) => [
    ...['--llm-backend-endpoints', '127.0.0.1:1', '--fallback-retry-queue-enabled', '--route-policy', 'weight'],
    ...['--route-config', JSON.stringify(endpoints.map(({ url }) => ({ base_url: url, fallback: true })))],
    ...['--drain-delay-ms', '0', ...more],
  ];

  it('waits, calls again and drains like its parts', async () => {
    await using first = await startEngine(limitedFirst(2, () => respond(200, 'first')));
    await using gateway = await startService(
      'standalone',
      flags([first], '--fallback-retry-init-delay-ms', '500', '--fallback-retry-max-delay-ms', '500'),
    );
    const asked = ask(gateway.url, { id: 'job' });
    await untilWaiting([gateway], 1);
    const ended = gateway.stop(30_000);
    assert.deepEqual([(await asked).text, callsOf(first, 'job')], ['first', 3]);
    assert.deepEqual(await ended, { code: 0, signal: null });
  });

  it('stays within the retry budget: what it does not allow goes on to the next fallback', async () => {
    await using first = await startEngine(() => refuse(429));
    await using second = await startEngine(() => respond(200, 'second'));
    await using gateway = await startService(
      'standalone',
      flags(
        [first, second],
        ...[
          '--retry-budget-percent',
          '10',
          '--fallback-retry-init-delay-ms',
          '20',
          '--fallback-retry-max-delay-ms',
          '20',
        ],
      ),
    );
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => ask(gateway.url, { id: `job-${n}` })));
    assert.ok(
      answers.every(({ status, text }) => status === 200 && text === 'second'),
      'fallbacks are not limited',
    );
    const retried = first.requests.length - 50;
    assert.ok(retried >= 10 && retried <= 10 + 5, `${retried} calls of the queue: a floor of 10, and 10 % of 50`);
    assert.ok((await gateway.metrics()).value('llm_gateway_retry_budget_exhausted_total') > 0);
  });

  it('stays within the retry budget when jobs of a long time are all due at the same moment', async () => {
    const dueAtMs = performance.now() + 14_000;
    await using first = await startEngine(
      limitedFirst(
        1,
        () => respond(200, 'first'),
        () => refuse(429, { retryAfterMs: Math.max(0, Math.round(dueAtMs - performance.now())) }),
      ),
    );
    await using second = await startEngine(() => respond(200, 'second'));
    await using gateway = await startService('standalone', flags([first, second], '--retry-budget-percent', '10'));
    const askAll = (from: number) => Array.from({ length: 20 }, (_, n) => ask(gateway.url, { id: `job-${from + n}` }));
    const early = askAll(0);
    await untilWaiting([gateway], 12);
    // Ten seconds later the budget knows nothing any more of the requests that these were.
    await sleep(10_500);
    const late = askAll(20);
    const answers = await Promise.all([...early, ...late]);
    assert.ok(answers.every(({ status }) => status === 200));
    const called = first.requests.length - answers.length;
    assert.ok(called >= 12 && called <= 10 + 4, `${called} calls of the queue: a floor of 10, and 10 % of 40`);
  });

  it('stays within the retry budget with internal retries', async () => {
    await using fleet = await startEngine(() => refuse(500));
    await using spare = await startEngine(() => respond(200, 'spare'));
    const route = JSON.stringify([
      { base_url: 'local', weight: 1 },
      { base_url: spare.url, fallback: true },
    ]);
    await using gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', fleet.address, '--route-policy', 'weight', '--route-config', route],
      ...['--retry-max-count', '5', '--retry-budget-percent', '20'],
    ]);
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(gateway.url)));
    assert.ok(answers.every(({ text }) => text === 'spare'));
    const retried = fleet.requests.length - 50;
    assert.ok(retried >= 10 && retried <= 10 + 10, `${retried} internal retries`);
    const metrics = await gateway.metrics();
    assert.equal(metrics.value('llm_gateway_retries_total', { cause: 'status_500' }), retried);
    assert.ok(metrics.value('llm_gateway_retry_budget_exhausted_total') > 0);
  });
});

describe('a field of the route config that is misspelt', { timeout: 60_000 }, () => {
  it('is told of by every service that reads the config', async () => {
    const config = JSON.stringify([{ base_url: 'http://127.0.0.1:1', weight: 1, fallbak: true }]);
    const flags = ['--route-policy', 'weight', '--route-config', config, '--nats-servers', 'nats://127.0.0.1:1'];
    for (const name of ['ingress', 'router', 'retry-worker']) {
      await using service = await startService(name, flags, { until: 'listening' });
      const told = await until(() => service.logs().find(({ msg }) => String(msg).includes('fallbak')), { what: name });
      assert.match(String(told.msg), /^--route-config\[0\]\."fallbak": ignored/);
    }
  });
});
