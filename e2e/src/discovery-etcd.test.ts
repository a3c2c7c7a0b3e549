import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startEtcdCluster, until } from '@llm-gateway/testing';
import { type Gateway, startGateway } from './gateway.ts';
import { balanced, steadyLoad } from './load.ts';
import { type Pod, serveAgain, startPod, sumOf } from './pods.ts';

const leaseTtlSeconds = 5;
const heartbeatMs = 2000;

describe('a gateway that finds its engines in a cluster of three etcd nodes, with the refresh interval at its default', () => {
  let stack: AsyncDisposableStack;
  let etcd: Awaited<ReturnType<typeof startEtcdCluster>>;
  let gateway: Gateway;
  let pods: Pod[];
  let flags: string[];
  const startOne = async (name: string) =>
    stack.use(await startPod(name, [...flags, '--heartbeat-interval-ms', String(heartbeatMs)]));
  const storeUp = () => sumOf(gateway.discovery, 'llm_gateway_store_up');

  before(async () => {
    stack = new AsyncDisposableStack();
    etcd = stack.use(await startEtcdCluster(3));
    flags = [
      ...['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', etcd.endpoints],
      ...['--discovery-etcd-lease-ttl', String(leaseTtlSeconds), '--discovery-etcd-dial-timeout', '2'],
    ];
    pods = await Promise.all(['a', 'b', 'c'].map(startOne));
    gateway = stack.use(await startGateway({ flags: { discovery: flags } }));
  });
  after(() => stack.disposeAsync());

  it('notices nothing when one node is killed', async () => {
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    const [, node] = etcd.nodes;
    await node?.kill();
    await serveAgain(pods);
    const d = await startOne('d');
    await serveAgain([d]);
    await d.end();
    await node?.start();
    balanced(await load.stop());
    assert.equal(await sumOf(gateway.discovery, 'llm_gateway_store_up'), 1);
  });

  it('goes on, with new decisions too, while there is no quorum for longer than the lease', async () => {
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    const [, second, third] = etcd.nodes;
    await Promise.all([second?.kill(), third?.kill()]);
    const awayMs = performance.now();
    await until(async () => (await storeUp()) === 0, { timeoutMs: 20_000 });
    await until(() => performance.now() - awayMs > (leaseTtlSeconds + 2) * 1000);
    await serveAgain(pods);
    await Promise.all([second?.start(), third?.start()]);
    await until(async () => (await storeUp()) === 1, { timeoutMs: 20_000 });
    await serveAgain(pods);
    const books = await load.stop();
    balanced(books);
    // Routers decided all the time; on a loaded machine one answer may have come too late.
    assert.ok((await sumOf(gateway.ingress, 'llm_gateway_degraded_decisions_total')) < books.sent / 20);
  });

  it('follows after all nodes were stopped, wiped and started again', async () => {
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    await etcd.wipe();
    await until(async () => (await storeUp()) === 0, { timeoutMs: 20_000 });
    await serveAgain(pods);
    const discovery = gateway.discovery[0];
    const live = async () => (await discovery?.metrics())?.value('llm_gateway_instances', { state: 'live' });
    await etcd.start();
    const backMs = performance.now();
    await until(async () => (await live()) === pods.length);
    const d = await startOne('d');
    await serveAgain([d]);
    await d.end();
    // Longer than what was only held would stay.
    await until(() => performance.now() - backMs > (leaseTtlSeconds + 1) * 1000);
    await serveAgain(pods);
    balanced(await load.stop());
  });

  it('loses a restarted pod within a heartbeat and finds it under its new address, and loses one whose registrar was killed with its lease', async () => {
    const load = steadyLoad(gateway.url, { perSecond: 50 });
    const [a, b, c] = pods;
    assert.ok(a && b && c);
    await c.end();
    const again = await startOne('c');
    assert.notEqual(again.engine.port, c.engine.port);
    await serveAgain([again]);
    await again.registrar.kill('SIGKILL');
    const sinceMs = performance.now();
    await until(
      async () => (await gateway.discovery[0]?.metrics())?.value('llm_gateway_instances', { state: 'live' }) === 2,
      {
        timeoutMs: 20_000,
      },
    );
    assert.ok(performance.now() - sinceMs > (leaseTtlSeconds / 3) * 1000);
    const served = again.served();
    await serveAgain([a, b]);
    // What was decided before may still be on its way.
    assert.ok(again.served() - served < 5);
    balanced(await load.stop());
  });
});
