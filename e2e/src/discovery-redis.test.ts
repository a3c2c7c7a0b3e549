import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startProxy, startRedis, startService, until } from '@llm-gateway/testing';
import { type Gateway, startGateway } from './gateway.ts';
import { balanced, steadyLoad } from './load.ts';
import { type Pod, serveAgain, startPod, sumOf } from './pods.ts';

const ttlMs = 2000;
const heartbeatMs = 500;

describe('a gateway that finds its engines in Redis', () => {
  let stack: AsyncDisposableStack;
  let redis: Awaited<ReturnType<typeof startRedis>>;
  /** Between one replica of discovery and Redis. */
  let proxy: Awaited<ReturnType<typeof startProxy>>;
  let gateway: Gateway;
  let pods: Pod[];
  const flags = (port: number) => [
    ...['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(port)],
    ...['--discovery-redis-status-ttl-ms', String(ttlMs), '--discovery-redis-refresh-interval-ms', '200'],
    ...['--discovery-redis-socket-timeout', '0.5'],
  ];
  const startOne = async (name: string) =>
    stack.use(await startPod(name, [...flags(redis.port), '--heartbeat-interval-ms', String(heartbeatMs)]));

  before(async () => {
    stack = new AsyncDisposableStack();
    redis = stack.use(await startRedis());
    proxy = stack.use(await startProxy(redis.port));
    pods = await Promise.all(['a', 'b', 'c'].map(startOne));
    gateway = stack.use(await startGateway({ flags: { discovery: flags(proxy.port) } }));
  });
  after(() => stack.disposeAsync());

  it('fails no request while Redis is away for longer than the TTL, and is back empty', async () => {
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    await serveAgain(pods);
    await redis.kill();
    const awayMs = performance.now();
    await until(async () => (await sumOf(gateway.discovery, 'llm_gateway_store_up')) === 0);
    await until(() => performance.now() - awayMs > 1.5 * ttlMs);
    await serveAgain(pods);
    redis.wipe();
    await redis.start();
    await until(async () => (await sumOf(gateway.discovery, 'llm_gateway_store_up')) === 1);
    // Twice as long as anything that was only held would stay.
    const backMs = performance.now();
    await until(() => performance.now() - backMs > 2 * ttlMs, { timeoutMs: 4 * ttlMs });
    await serveAgain(pods);
    const books = await load.stop();
    balanced(books);
    const metrics = await gateway.discovery[0]?.metrics();
    assert.equal(metrics?.value('llm_gateway_instances', { role: 'neutral', state: 'live' }), 3);
    // Routers decided all the time; on a loaded machine one answer may have come too late.
    assert.ok((await sumOf(gateway.ingress, 'llm_gateway_degraded_decisions_total')) < books.sent / 20);
  });

  it('follows a pod that leaves, one that joins, and one that is back under its old name with a new address', async () => {
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    const d = await startOne('d');
    await serveAgain([d], 5000);
    await d.end();
    const [, , c] = pods;
    assert.ok(c);
    await c.end();
    const again = await startOne('c');
    assert.notEqual(again.engine.port, c.engine.port);
    await serveAgain([again], 5000);
    pods = [...pods.slice(0, 2), again];
    balanced(await load.stop());
  });

  it('leaves a replica of discovery that is cut off from Redis, and outlives one that is killed', async () => {
    const natsFlags = ['--nats-servers', gateway.nats.url];
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    const second = stack.use(await startService('discovery', [...natsFlags, ...flags(redis.port)]));
    await proxy.cut();
    await until(async () => (await sumOf(gateway.discovery, 'llm_gateway_store_up')) === 0);
    // Only the replica that has Redis can tell of this one.
    const d = await startOne('d');
    await serveAgain([d]);
    await second.kill('SIGKILL');
    await serveAgain([...pods, d]);
    await proxy.restore();
    await d.end();
    await until(async () => (await sumOf(gateway.discovery, 'llm_gateway_store_up')) === 1);
    await gateway.discovery[0]?.kill('SIGKILL');
    await serveAgain(pods);
    await gateway.start('discovery');
    const e = await startOne('e');
    await serveAgain([...pods, e]);
    await e.end();
    balanced(await load.stop());
  });
});
