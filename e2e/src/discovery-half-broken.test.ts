import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { until } from '@llm-gateway/testing';
import { type Gateway, startGateway } from './gateway.ts';
import { balanced, steadyLoad } from './load.ts';
import { type Pod, serveAgain, startPod } from './pods.ts';
import { lasts, startTroubledRedis, type TroubledRedis, troubles } from './troubled-redis.ts';

const ttlMs = 3000;
const heartbeatMs = 750;
const timeoutMs = 400;
/** Longer than a record lives, and in sum longer than Redis keeps it. */
const troubleMs = 1.6 * ttlMs;

describe('a gateway whose Redis is healthy, read-only, slow and gone by turns', () => {
  let stack: AsyncDisposableStack;
  let redis: TroubledRedis;
  let gateway: Gateway;
  let pods: Pod[];

  before(async () => {
    stack = new AsyncDisposableStack();
    redis = stack.use(await startTroubledRedis({ timeoutMs }));
    const flags = [
      ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)],
      ...['--discovery-redis-status-ttl-ms', String(ttlMs), '--discovery-redis-refresh-interval-ms', '200'],
      ...['--discovery-redis-socket-timeout', String(timeoutMs / 1000)],
    ];
    const heartbeat = ['--heartbeat-interval-ms', String(heartbeatMs)];
    pods = await Promise.all(
      ['a', 'b', 'c'].map(async (name) => stack.use(await startPod(name, [...flags, ...heartbeat]))),
    );
    gateway = stack.use(await startGateway({ replicas: { discovery: 2 }, flags: { discovery: flags } }));
  });
  after(() => stack.disposeAsync());

  const states = async () => {
    const readings = await Promise.all(gateway.discovery.map((service) => service.metrics()));
    return readings.map((metrics) =>
      ['live', 'held'].map((state) => metrics.value('llm_gateway_instances', { role: 'neutral', state })),
    );
  };

  it('fails no request, loses no pod, and has the list right after each repair', async () => {
    await until(async () => (await states()).every(([live]) => live === 3));
    const load = steadyLoad(gateway.url, { perSecond: 30 });
    await serveAgain(pods);
    for (const trouble of troubles) {
      await redis.break(trouble);
      await lasts(troubleMs);
      for (const [live = 0, held = 0] of await states()) assert.equal(live + held, 3, trouble);
      await serveAgain(pods);
      await redis.repair();
      await until(async () => (await states()).every(([live]) => live === 3));
      await lasts(heartbeatMs);
    }
    balanced(await load.stop());
  });
});
