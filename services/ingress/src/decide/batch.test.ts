import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { GatewayError } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { batched } from './batch.ts';

/** A send whose batches the test answers when it wants to. */
function held() {
  const batches: { items: number[]; answer(results?: number[]): void; fail(error: unknown): void }[] = [];
  const send = (items: number[]) => {
    const { promise, resolve, reject } = Promise.withResolvers<number[]>();
    batches.push({ items, answer: (results = items.map((item) => item * 2)) => resolve(results), fail: reject });
    return promise;
  };
  return { batches, send };
}

test('what is asked for in one turn of the event loop goes as one batch, and each gets its own result', async () => {
  const { batches, send } = held();
  const sizes: number[] = [];
  const ask = batched(send, { maxBatch: 100, onBatch: (size) => sizes.push(size) });
  const results = Promise.all([ask(1), Promise.resolve().then(() => ask(2)), ask(3)]);
  assert.equal(batches.length, 0);
  await turn();
  await turn();
  assert.deepEqual(
    batches.map(({ items }) => items),
    [[1, 3, 2]],
  );
  batches[0]?.answer();
  assert.deepEqual(await results, [2, 4, 6]);
  assert.deepEqual(sizes, [3]);
});

test('while a batch is in flight the next one gathers', async () => {
  const { batches, send } = held();
  const ask = batched(send, { maxBatch: 100 });
  const first = ask(1);
  await turn();
  const later = [ask(2)];
  await turn();
  later.push(ask(3));
  await turn();
  assert.equal(batches.length, 1);
  batches[0]?.answer();
  await first;
  await turn();
  assert.deepEqual(batches[1]?.items, [2, 3]);
  batches[1]?.answer();
  assert.deepEqual(await Promise.all(later), [4, 6]);
});

test('a batch has at most maxBatch items; the rest follows in order', async () => {
  const { batches, send } = held();
  const ask = batched(send, { maxBatch: 2 });
  const results = Promise.all([1, 2, 3, 4, 5].map((item) => ask(item)));
  for (const size of [2, 2, 1]) {
    await turn();
    await turn();
    const batch = batches.at(-1);
    assert.equal(batch?.items.length, size);
    batch?.answer();
  }
  assert.deepEqual(await results, [2, 4, 6, 8, 10]);
});

test('when a batch fails its items fail, and the next batch is sent', async () => {
  const { batches, send } = held();
  const ask = batched(send, { maxBatch: 2 });
  const results = Promise.allSettled([ask(1), ask(2), ask(3)]);
  await turn();
  batches[0]?.fail(new GatewayError('bus_timeout', 'no answer'));
  await turn();
  await turn();
  batches[1]?.answer();
  assert.deepEqual(
    (await results).map(({ status }) => status),
    ['rejected', 'rejected', 'fulfilled'],
  );
});

test('a send that throws at once, or answers with another number of results, fails its items', async () => {
  const throwing = batched(
    () => {
      throw new Error('broken');
    },
    { maxBatch: 2 },
  );
  await assert.rejects(throwing(1), /broken/);
  const short = batched(async () => [1], { maxBatch: 2 });
  const results = await Promise.allSettled([short(1), short(2)]);
  for (const result of results) assert.ok(result.status === 'rejected' && result.reason.code === 'invalid_message');
});

test('an item whose asker left before its batch did is not sent', async () => {
  const { batches, send } = held();
  const ask = batched(send, { maxBatch: 2 });
  const leaving = new AbortController();
  await assert.rejects(ask(0, AbortSignal.abort()), { code: 'client_closed' });
  const gone = ask(1, leaving.signal);
  const stays = [ask(2), ask(3)];
  leaving.abort();
  await assert.rejects(gone, { code: 'client_closed' });
  await turn();
  assert.deepEqual(
    batches.map(({ items }) => items),
    [[2, 3]],
  );
  batches[0]?.answer();
  assert.deepEqual(await Promise.all(stays), [4, 6]);
});

test('an asker that leaves while its batch is in flight does not wait for it; the others do', async () => {
  const { batches, send } = held();
  const ask = batched(send, { maxBatch: 2 });
  const leaving = new AbortController();
  const gone = ask(1, leaving.signal);
  const stays = ask(2);
  await turn();
  leaving.abort();
  await assert.rejects(gone, { code: 'client_closed' });
  batches[0]?.answer();
  assert.equal(await stays, 4);
});

test('when all have left nothing is sent, and the next one that asks is served', async () => {
  const { batches, send } = held();
  const ask = batched(send, { maxBatch: 2 });
  const leaving = new AbortController();
  const gone = assert.rejects(ask(1, leaving.signal), { code: 'client_closed' });
  leaving.abort();
  await gone;
  await turn();
  assert.equal(batches.length, 0);
  const next = ask(2);
  await turn();
  batches[0]?.answer();
  assert.equal(await next, 4);
});

test('however questions, answers, failures and departures mix, each asker gets its own result once, and one batch is in flight', async () => {
  const asker = fc.record({ turn: fc.nat(6), leaves: fc.option(fc.nat(6)) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(asker, { maxLength: 40 }),
      fc.array(fc.record({ turns: fc.nat(3), fails: fc.boolean() }), { maxLength: 40 }),
      fc.integer({ min: 1, max: 8 }),
      async (askers, sends, maxBatch) => {
        let inFlight = 0;
        let batches = 0;
        const sent: number[] = [];
        const ask = batched(
          async (items: number[]) => {
            inFlight++;
            assert.equal(inFlight, 1);
            assert.ok(items.length >= 1 && items.length <= maxBatch);
            sent.push(...items);
            const { turns, fails } = sends[batches++] ?? { turns: 0, fails: false };
            for (let passed = 0; passed < turns; passed++) await turn();
            inFlight--;
            if (fails) throw new Error('failed');
            return items.map((item) => item * 2);
          },
          { maxBatch },
        );
        const results = askers.map(async ({ turn: at, leaves }, item) => {
          for (let passed = 0; passed < at; passed++) await turn();
          const leaving = new AbortController();
          if (leaves !== null) void waitTurns(leaves).then(() => leaving.abort());
          try {
            return await ask(item, leaves === null ? undefined : leaving.signal);
          } catch (error) {
            if (error instanceof GatewayError && error.code === 'client_closed') return 'left';
            return 'failed';
          }
        });
        for (const [item, result] of (await Promise.all(results)).entries()) {
          if (typeof result === 'number') assert.equal(result, item * 2);
          else if (result === 'left') assert.notEqual(askers[item]?.leaves, null);
          else assert.ok(sent.includes(item));
        }
        assert.equal(new Set(sent).size, sent.length);
      },
    ),
    { numRuns: 200 },
  );
});

async function waitTurns(turns: number): Promise<void> {
  for (let passed = 0; passed < turns; passed++) await turn();
}

test('a batch is no larger than the bytes that may be sent now, but for one item that is', async () => {
  const { batches, send } = held();
  let maxBytes = 10;
  const ask = batched(send, { maxBatch: 100, maxBytes: () => maxBytes, bytesOf: (item) => item });
  const results = Promise.all([4, 5, 6, 50, 1, 1].map((item) => ask(item)));
  for (let at = 0; at < 4; at++) {
    await turn();
    await turn();
    if (at === 2) maxBytes = 1;
    batches[at]?.answer();
  }
  await turn();
  await turn();
  batches[4]?.answer();
  await results;
  assert.deepEqual(
    batches.map(({ items }) => items),
    [[4, 5], [6], [50], [1], [1]],
  );
});
