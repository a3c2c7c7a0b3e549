import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Outbox, type OutboxOptions } from './outbox.ts';

const long = 1_000_000;

function outboxOf(options: Partial<OutboxOptions<string>> = {}) {
  const published: string[] = [];
  const dropped: number[] = [];
  const outbox = new Outbox<string>({
    bus: { maxBytes: 1000 },
    delayMs: long,
    maxWaiting: 4,
    whenFull: 'drop',
    maxEntries: 100,
    envelopeBytes: 0,
    bytesOf: (entry) => entry.length,
    publish: (entries) => void published.push(entries.join('')),
    onDropped: () => void dropped.push(1),
    ...options,
  });
  return { outbox, published, dropped };
}

describe('an outbox', () => {
  it('publishes what was gathered together, some time after the first', async () => {
    const { promise, resolve } = Promise.withResolvers<readonly string[]>();
    const { outbox } = outboxOf({ delayMs: 5, publish: resolve });
    outbox.add('a');
    outbox.add('b');
    assert.deepEqual(await promise, ['a', 'b']);
  });

  it('publishes at once when it is full, and begins anew', () => {
    const { outbox, published, dropped } = outboxOf({ whenFull: 'publish' });
    for (const entry of 'abcdefghi') outbox.add(entry);
    assert.deepEqual(published, ['abcd', 'efgh']);
    outbox[Symbol.dispose]();
    assert.deepEqual(published, ['abcd', 'efgh', 'i']);
    assert.equal(dropped.length, 0);
  });

  it('drops and counts what comes when it is full, where that is wanted', () => {
    const { outbox, published, dropped } = outboxOf();
    for (const entry of 'abcdef') outbox.add(entry);
    assert.deepEqual(published, []);
    assert.equal(dropped.length, 2);
    outbox[Symbol.dispose]();
    assert.deepEqual(published, ['abcd']);
  });

  it('makes messages that the bus takes, of so many entries at most', () => {
    const { outbox, published } = outboxOf({
      maxWaiting: 100,
      bus: { maxBytes: 10_005 },
      envelopeBytes: 5,
      maxEntries: 3,
    });
    const [half, over] = ['a'.repeat(5000), 'x'.repeat(10_001)];
    for (const entry of [half, half, 'c', 'd', 'e', 'f', over]) outbox.add(entry);
    outbox[Symbol.dispose]();
    assert.deepEqual(published, [half + half, 'cde', 'f', over]);
  });

  it('publishes nothing when there is nothing', () => {
    const { outbox, published } = outboxOf();
    outbox[Symbol.dispose]();
    assert.deepEqual(published, []);
  });
});
