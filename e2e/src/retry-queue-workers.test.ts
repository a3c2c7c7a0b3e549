import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type Engine, respond, type Service, startEngine, stream, until } from '@llm-gateway/testing';
import { ask, begin } from './answer.ts';
import type { Gateway } from './gateway.ts';
import { callsOf, held, limitedFirst, startQueue, sumOf, untilWaiting } from './queue.ts';

/** Long enough to kill somebody while a job waits. */
const initDelayMs = 2000;

describe('the 429 queue when its workers end', { timeout: 180_000 }, () => {
  const stack = new AsyncDisposableStack();
  let first: Engine;
  let second: Engine;
  let gateway: Gateway;
  let started = 0;
  let workers: Service[];
  let round = 0;

  before(async () => {
    first = stack.use(await startEngine());
    second = stack.use(await startEngine(() => respond(200, 'second')));
    gateway = stack.use(
      await startQueue({
        endpoints: [first, second],
        workers: 2,
        worker: { 'init-delay-ms': initDelayMs, 'max-delay-ms': initDelayMs },
      }),
    );
    workers = [...gateway.others];
    started = workers.length;
  });
  after(() => stack.disposeAsync());
  /** Two live workers, whatever the last test did to them. */
  beforeEach(async () => {
    round++;
    workers = workers.filter((worker) => !worker.ended);
    while (workers.length < 2) {
      workers.push(await gateway.start('retry-worker'));
      started++;
    }
    // An ingress gives no job to a worker that it does not know yet.
    const announced = (ingress: Service) => ingress.logs().filter(({ msg }) => msg === 'retry worker announced').length;
    await until(() => gateway.ingress.every((ingress) => announced(ingress) >= started));
  });

  const id = (n: number) => `round-${round}-${n}`;
  const askAll = (count: number) => Array.from({ length: count }, (_, n) => ask(gateway.url, { id: id(n) }));
  const jobs = (outcome: string) => sumOf(gateway.ingress, 'retry_jobs_total', { outcome });

  const holder = async (state: 'waiting' | 'calling'): Promise<Service> => {
    const counts = await Promise.all(workers.map(async (worker) => ({ worker, count: (await held(worker))[state] })));
    counts.sort((a, b) => b.count - a.count);
    assert.ok(counts[0] && counts[0].count > 0);
    return counts[0].worker;
  };

  it('gives every client one right answer when a worker with waiting jobs is killed', async () => {
    first.script = limitedFirst(1, () => respond(200, 'first'));
    const lostBefore = await jobs('lost');
    const asked = askAll(8);
    await untilWaiting(workers, 8);
    const victim = await holder('waiting');
    const { waiting } = await held(victim);
    await victim.kill('SIGKILL');
    for (const [n, answer] of (await Promise.all(asked)).entries()) {
      assert.deepEqual([answer.status, answer.text, answer.whole], [200, 'first', true]);
      assert.equal(callsOf(first, id(n)), 2, 'the 429, and one call of the queue');
      assert.equal(answer.headers.get('x-gateway-attempts'), '2');
      assert.equal(answer.headers.get('x-gateway-route'), 'fallback');
    }
    assert.equal((await jobs('lost')) - lostBefore, waiting);
    assert.equal(callsOf(second, id(0)), 0);
  });

  it('has jobs done by another worker when theirs hangs, within seconds and no matter when it goes on', async () => {
    first.script = limitedFirst(1, () => respond(200, 'first'));
    const lostBefore = await jobs('lost');
    const asked = askAll(12);
    await untilWaiting(workers, 12);
    const victim = await holder('waiting');
    const { waiting } = await held(victim);
    await victim.kill('SIGSTOP');
    const stoppedAt = performance.now();
    const answers = await Promise.all(asked);
    const tookMs = performance.now() - stoppedAt;
    assert.ok(
      tookMs < 15_000,
      `${tookMs} ms: 4 until it is given up, 2 for offers that it does not answer, 2 of backoff`,
    );
    const text = (n: number) => answers[n]?.text;
    assert.ok(answers.every(({ status, whole }) => status === 200 && whole));
    assert.equal((await jobs('lost')) - lostBefore, waiting);
    // An offer may reach the one that hangs again; after two such the next fallback is tried.
    const served = answers.filter(({ text }) => text === 'first').length;
    assert.ok(served > 12 - waiting, `the other one has done jobs of the lost one: ${served} of 12`);

    await victim.kill('SIGCONT');
    await until(async () => assert.deepEqual(await held(victim), { waiting: 0, calling: 0 }) ?? true);
    for (let n = 0; n < 12; n++) assert.equal(callsOf(first, id(n)), text(n) === 'first' ? 2 : 1, id(n));
  });

  it('counts the call that a killed worker was making', async () => {
    first.script = limitedFirst(1, ({ headers }) =>
      callsOf(first, String(headers['x-request-id'])) === 2
        ? respond(200, 'too late', { delayMs: 60_000 })
        : respond(200, 'first'),
    );
    const asked = ask(gateway.url, { id: id(0) });
    await until(() => callsOf(first, id(0)) === 2);
    await (await holder('calling')).kill('SIGKILL');
    const answer = await asked;
    assert.deepEqual([answer.status, answer.text], [200, 'first']);
    assert.equal(answer.headers.get('x-gateway-attempts'), '3');
    assert.equal(callsOf(first, id(0)), 3);
  });

  it('breaks the answer off when its worker is killed after the first byte, and calls nobody again', async () => {
    const events = Array.from({ length: 100 }, (_, n) => `data: ${n}\n\n`);
    first.script = limitedFirst(1, () => stream(events, { gapMs: 100 }));
    const asked = begin(gateway.url, { id: id(0), stream: true });
    await asked.head;
    await (await holder('calling')).kill('SIGKILL');
    const answer = await asked.answer;
    assert.equal(answer.status, 200);
    assert.ok(!answer.whole);
    assert.match(answer.text, /^data: 0\n\n/);
    assert.match(answer.text, /\n\ndata: \{"error":.*"upstream_failed"\}\}\n\n$/);
    assert.equal(callsOf(first, id(0)), 2);
    assert.equal(callsOf(second, id(0)), 0);
    await until(() => first.live === 0);
  });

  it('hands waiting jobs over and finishes calls when a worker is told to end, which exits 0', async () => {
    let answerNow = () => {};
    const released = new Promise<void>((resolve) => {
      answerNow = resolve;
    });
    first.script = limitedFirst(1, ({ headers }) => async (reply) => {
      if (headers['x-request-id'] === id(0)) await released;
      await respond(200, 'first')(reply);
    });
    const calling = ask(gateway.url, { id: id(0) });
    await until(() => callsOf(first, id(0)) === 2);
    const ending = await holder('calling');
    const waiting = Array.from({ length: 6 }, (_, n) => ask(gateway.url, { id: id(n + 1) }));
    await untilWaiting(workers, 6);
    const { waiting: handedBack } = await held(ending);
    const handedBackSoFar = () => sumOf([ending], 'retry_queue_outcomes_total', { outcome: 'handed_back' });
    const handedBackBefore = await handedBackSoFar();

    const [other] = workers.filter((worker) => worker !== ending);
    assert.ok(other);
    const exited = ending.stop(30_000);
    await until(async () => (await held(other)).waiting === 6, { what: 'the other one has them all' });
    assert.deepEqual(await held(ending), { waiting: 0, calling: 1 });
    assert.equal((await handedBackSoFar()) - handedBackBefore, handedBack);
    answerNow();
    assert.equal((await calling).text, 'first');
    assert.deepEqual(await exited, { code: 0, signal: null });
    for (const answer of await Promise.all(waiting)) assert.deepEqual([answer.status, answer.text], [200, 'first']);
    for (let n = 0; n <= 6; n++) assert.equal(callsOf(first, id(n)), 2);
  });

  it('goes on to the next fallback when no worker is left', async () => {
    first.script = limitedFirst(1, () => respond(200, 'first'));
    const asked = askAll(4);
    await untilWaiting(workers, 4);
    await Promise.all(workers.map((worker) => worker.kill('SIGKILL')));
    for (const answer of await Promise.all(asked)) assert.deepEqual([answer.status, answer.text], [200, 'second']);
    assert.equal((await ask(gateway.url, { id: id(9) })).text, 'second');
  });

  it('finishes its jobs while NATS is away, and takes new ones when it is back', async () => {
    first.script = limitedFirst(1, () => respond(200, 'first'));
    await until(async () => (await ask(gateway.url, {})).text === 'first', { timeoutMs: 20_000 });
    const asked = askAll(4);
    await untilWaiting(workers, 4);
    await gateway.nats.kill('SIGKILL');
    assert.equal((await ask(gateway.url, { id: id(8) })).text, 'second');
    for (const answer of await Promise.all(asked)) assert.deepEqual([answer.status, answer.text], [200, 'first']);
    await gateway.nats.restart();
    await until(async () => (await ask(gateway.url, {})).text === 'first', { timeoutMs: 30_000 });
  });
});
