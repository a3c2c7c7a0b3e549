import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { respond, startEngine, until } from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { held, limitedFirst, startQueue, sumOf } from './queue.ts';

describe('the places of the 429 queue', { timeout: 120_000 }, () => {
  it('are 2 that wait and 2 that call in each of two workers: of 12 jobs at once 8 are taken and 4 go on', async () => {
    let calling = 0;
    let mostCalling = 0;
    await using first = await startEngine(
      limitedFirst(1, () => async (reply) => {
        calling++;
        mostCalling = Math.max(mostCalling, calling);
        await reply.delay(400);
        calling--;
        await respond(200, 'first')(reply);
      }),
    );
    await using second = await startEngine(() => respond(200, 'second'));
    await using gateway = await startQueue({
      endpoints: [first, second],
      workers: 2,
      // Nobody is back before the last one has come.
      worker: { 'queue-size': 2, 'worker-size': 2, 'init-delay-ms': 3000, 'max-delay-ms': 3000 },
    });
    const workers = gateway.others;
    const ingress = gateway.ingress;
    const asked = Array.from({ length: 12 }, (_, n) => ask(gateway.url, { id: `job-${n}` }));

    await until(async () => (await sumOf(ingress, 'retry_jobs_total', { outcome: 'refused' })) === 4);
    for (const worker of workers) {
      assert.deepEqual(await held(worker), { waiting: 4, calling: 0 }, 'idle slots are places too');
      assert.ok((await worker.metrics()).value('llm_gateway_retry_queue_oldest_age_seconds') > 0);
    }
    const answers = await Promise.all(asked);
    const served = (by: string) => answers.filter(({ status, text }) => status === 200 && text === by).length;
    assert.deepEqual([served('first'), served('second')], [8, 4]);
    assert.equal(mostCalling, 4, 'two at a time in each worker');
    assert.deepEqual([first.requests.length, second.requests.length], [20, 4]);

    assert.equal(await sumOf(ingress, 'retry_offers_total', { result: 'accepted' }), 8);
    assert.equal(await sumOf(ingress, 'retry_jobs_total', { outcome: 'answered' }), 8);
    for (const worker of workers) {
      assert.equal(await sumOf([worker], 'retry_queue_offers_total', { result: 'accepted' }), 4);
      await until(async () => (await sumOf([worker], 'retry_queue_outcomes_total', { outcome: 'answered' })) === 4);
      assert.equal(await sumOf([worker], 'retry_queue_calls_total', { outcome: 'answered' }), 4);
      assert.deepEqual(await held(worker), { waiting: 0, calling: 0 });
      assert.equal(await sumOf([worker], 'retry_queue_oldest_age_seconds'), 0);
      assert.equal(await sumOf([worker], 'retry_queue_held_bytes'), 0);
    }

    const again = await Promise.all(Array.from({ length: 8 }, (_, n) => ask(gateway.url, { id: `again-${n}` })));
    assert.deepEqual(new Set(again.map(({ text }) => text)), new Set(['first']), 'they have room again');
  });
});
