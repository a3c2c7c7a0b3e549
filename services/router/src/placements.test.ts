import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { maxFingerprints, type PrefixPlaced, prefixPlaced } from '@llm-gateway/protocol';
import { until } from '@llm-gateway/testing';
import { placementOutbox } from './placements.ts';

const longest = 'A'.repeat(9 * maxFingerprints);

test('placements of a moment go together, in messages that the bus takes, and in their order', async () => {
  await using bus = inProcessBus();
  const messages: PrefixPlaced[] = [];
  bus.subscribe(prefixPlaced, (message) => void messages.push(message));
  using placements = placementOutbox(bus, 'router-1', () => assert.fail('dropped'));
  for (let at = 0; at < 4000; at++) placements.add({ instance: `instance-${at}`, fingerprints: longest });
  const told = () => messages.flatMap(({ placed }) => placed.map(({ instance }) => instance));
  await until(() => told().length === 4000);
  assert.deepEqual(
    told(),
    Array.from({ length: 4000 }, (_, at) => `instance-${at}`),
  );
  for (const message of messages) {
    assert.ok(message.placed.length <= 1024);
    assert.ok(prefixPlaced.payload.encode(message).length <= bus.maxBytes);
    assert.deepEqual(prefixPlaced.payload.decode(prefixPlaced.payload.encode(message)), message);
  }
});

test('placements beyond a limit are dropped and counted; what is gathered is told when the router ends', async () => {
  await using bus = inProcessBus();
  let told = 0;
  let dropped = 0;
  bus.subscribe(prefixPlaced, ({ placed }) => {
    told += placed.length;
  });
  const placements = placementOutbox(bus, 'router-1', () => {
    dropped++;
  });
  for (let at = 0; at < 5000; at++) placements.add({ instance: 'a', fingerprints: 'AAAAAAAAA' });
  placements[Symbol.dispose]();
  await until(() => told > 0);
  assert.deepEqual([told, dropped], [4096, 904]);
});
