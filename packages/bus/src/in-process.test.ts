import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inProcessBus } from './in-process.ts';
import { hasCode, news, question, saying, task } from './scenario.ts';

test('payloads pass by reference', async () => {
  await using bus = inProcessBus();
  const [query, body] = [saying('x'), new Uint8Array(3)];
  const seen: unknown[] = [];
  bus.respond(question, (received) => received);
  bus.subscribe(news, (received) => seen.push(received));
  bus.consume(task, (received, bytes) => seen.push(received, bytes));
  assert.equal(await bus.request(question, query, { timeoutMs: 1_000 }), query);
  bus.publish(news, query);
  bus.send(task, query, body);
  await Promise.resolve();
  assert.ok(seen[0] === query && seen[1] === query && seen[2] === body);
});

test('a handler learns that its asker left, or ran out of time', async () => {
  await using bus = inProcessBus();
  const signals: AbortSignal[] = [];
  bus.respond(question, async (query, { signal }) => {
    signals.push(signal);
    if (query.id !== 'at once') await new Promise((resolve) => signal.addEventListener('abort', resolve));
    return query;
  });
  await assert.rejects(bus.request(question, saying('late'), { timeoutMs: 10 }), hasCode('bus_timeout'));
  const leaving = new AbortController();
  const left = bus.request(question, saying('left'), { timeoutMs: 60_000, signal: leaving.signal });
  queueMicrotask(() => leaving.abort());
  await assert.rejects(left, hasCode('client_closed'));
  const answered = new AbortController();
  await bus.request(question, saying('at once'), { timeoutMs: 60_000, signal: answered.signal });
  answered.abort();
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [true, true, false],
  );
});

test('an asker that leaves before its handler begins is not kept waiting for it', async () => {
  await using bus = inProcessBus();
  bus.respond(question, async (query, { signal }) => {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
    return query;
  });
  const leaving = new AbortController();
  const left = bus.request(question, saying('x'), { timeoutMs: 60_000, signal: leaving.signal });
  leaving.abort();
  await assert.rejects(left, hasCode('client_closed'));
});

test('members of a group take turns', async () => {
  await using bus = inProcessBus();
  for (const name of ['a', 'b', 'c']) bus.respond(question, () => saying(name));
  const ids: string[] = [];
  for (let asked = 0; asked < 6; asked++) {
    ids.push((await bus.request(question, saying(''), { timeoutMs: 1_000 })).id);
  }
  assert.deepEqual(ids.toSorted(), ['a', 'a', 'b', 'b', 'c', 'c']);
  assert.equal(new Set(ids.slice(0, 3)).size, 3);
});
