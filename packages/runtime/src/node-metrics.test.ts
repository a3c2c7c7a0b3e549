import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics, until } from '@llm-gateway/testing';
import { EventLoopLag } from './event-loop-lag.ts';
import { Metrics } from './metrics.ts';
import { declareNodeMetrics } from './node-metrics.ts';

const lookIntervalMs = 1500;

/** Keeps the event loop busy in pieces of `ms`. */
function busy(ms: number): Disposable {
  const timer = setInterval(() => block(ms), 1);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function block(ms: number): void {
  const untilMs = performance.now() + ms;
  while (performance.now() < untilMs);
}

test('the metrics of Node have types and units that fit their names', async () => {
  const metrics = new Metrics();
  declareNodeMetrics(metrics);
  const text = (await metrics.exposition()).text;
  const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => ({ name, type }));
  assert.ok(types.length > 15);
  for (const { name, type } of types) {
    assert.match(name, /^(?:process|nodejs)_/);
    assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`);
  }
  const reading = parseMetrics(text);
  assert.ok(reading.value('process_cpu_seconds_total') > 0);
  assert.ok(reading.value('process_open_fds') > 3);
  assert.ok(reading.value('process_max_fds') > 3);
  assert.ok(reading.value('process_virtual_memory_bytes') > reading.value('process_resident_memory_bytes'));
  assert.ok(Math.abs(reading.value('process_start_time_seconds') * 1000 - performance.timeOrigin) < 2);
  assert.ok(reading.value('nodejs_eventloop_active_seconds_total') >= 0);
});

test('the lag of a busy event loop is measured, that of one at rest is not', async () => {
  using lag = new EventLoopLag(lookIntervalMs);
  assert.deepEqual(Object.values(lag.take()), [0, 0, 0, 0, 0]);
  {
    using _load = busy(50);
    await until(() => lag.take().p50Seconds > 0.03, { what: 'the lag shows', timeoutMs: 40_000 });
    const { p90Seconds, maxSeconds } = await until(
      () => {
        const taken = lag.take();
        return taken.meanSeconds > 0 && taken;
      },
      { intervalMs: 300 },
    );
    assert.ok(p90Seconds > 0.03 && p90Seconds < 1, `${p90Seconds} s`);
    assert.ok(maxSeconds >= p90Seconds);
  }
});

test('an event loop that waits for the processor is not taken for a busy one', async () => {
  using lag = new EventLoopLag(lookIntervalMs);
  // Active all the time, and computing next to nothing: as on a machine with more work than processors.
  const waiting = new Int32Array(new SharedArrayBuffer(4));
  const timer = setInterval(() => Atomics.wait(waiting, 0, 0, 50), 1);
  using _waits = { [Symbol.dispose]: () => clearInterval(timer) };
  await until(() => lag.take().maxSeconds > 0, { what: 'it was looked at', timeoutMs: 40_000 });
  const lookedAtMs = performance.now();
  await until(() => performance.now() - lookedAtMs > 500);
  assert.equal(lag.take().p50Seconds, 0);
});
