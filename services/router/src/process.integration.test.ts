import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Bus, connectNats } from '@llm-gateway/bus';
import { type Ask, GatewayError, type Instance, instancesList, routeDecide } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import { type NatsServer, startNats, startService, until } from '@llm-gateway/testing';

const reading = readRouteTable('', '', () => '');
assert.ok('table' in reading);
const { generation } = reading.table;

const ask: Ask = { model: 'm', stage: 'route', excluded: [] };
const instances: Instance[] = ['a', 'b'].map((id) => {
  return {
    id,
    roles: ['neutral'],
    host: '10.0.0.1',
    port: 8000,
    kvHost: '',
    kvPort: 0,
    dpRank: 0,
    dpSize: 1,
    model: '',
  };
});

/** A real NATS server with discovery on it, and the bus of one who asks. */
async function network(): Promise<AsyncDisposable & { readonly nats: NatsServer; readonly bus: Bus }> {
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const bus = stack.use(connectNats({ natsServers: nats.url }, { name: 'test' }));
  await until(() => bus.connected);
  bus.respond(instancesList, () => ({ replica: 'discovery-1', revision: 1, storeUp: true, instances, more: false }));
  const kept = stack.move();
  return { nats, bus, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

function decide(bus: Bus, asks: Ask[], timeoutMs = 10_000) {
  return bus.request(routeDecide, { ingress: 'ingress-1', generation, asks }, { timeoutMs });
}

/** Asks until it is stopped, one batch after the other; tells who answered, and what failed. */
function askSteadily(bus: Bus) {
  const answers: string[] = [];
  const failures: unknown[] = [];
  let stopped = false;
  const asking = (async () => {
    while (!stopped) {
      try {
        const reply = await decide(bus, [ask, ask], 1000);
        assert.equal(reply.decisions.length, 2);
        answers.push(reply.router);
      } catch (error) {
        failures.push(error);
      }
    }
  })();
  return {
    answers,
    failures,
    stop() {
      stopped = true;
      return asking;
    },
  };
}

describe('router processes', () => {
  test('share the batches, and one goes on alone when the other is killed', { timeout: 120_000 }, async () => {
    await using net = await network();
    const flags = ['--nats-servers', net.nats.url];
    await using one = await startService('router', flags);
    await using other = await startService('router', flags);
    const load = askSteadily(net.bus);
    await until(() => new Set(load.answers).size === 2);

    await one.kill('SIGKILL');
    const before = load.answers.length;
    await until(() => load.answers.length > before + 50, { timeoutMs: 30_000 });
    await load.stop();
    assert.equal(new Set(load.answers.slice(-40)).size, 1);
    // Only the batch in its hands can be lost with it, and it is known to be: the asker decides itself then.
    assert.ok(load.failures.length <= 1, String(load.failures));
    for (const error of load.failures) assert.ok(error instanceof GatewayError && error.code === 'bus_timeout');
    assert.ok(!other.ended);
  });

  test('lose nothing when one is told to end', { timeout: 120_000 }, async () => {
    await using net = await network();
    const flags = ['--nats-servers', net.nats.url];
    await using one = await startService('router', flags);
    await using _other = await startService('router', flags);
    const load = askSteadily(net.bus);
    await until(() => new Set(load.answers).size === 2);
    assert.deepEqual(await one.stop(), { code: 0, signal: null });
    const before = load.answers.length;
    await until(() => load.answers.length > before + 20, { timeoutMs: 30_000 });
    await load.stop();
    assert.deepEqual(load.failures, []);
  });

  test('answer each ask for itself over NATS, and count it', { timeout: 120_000 }, async () => {
    await using net = await network();
    await using router = await startService('router', ['--nats-servers', net.nats.url]);
    const odd = { model: null, stage: 'tomorrow', excluded: [] } as unknown as Ask;
    const reply = await decide(net.bus, [ask, odd, ask]);
    assert.deepEqual(
      reply.decisions.map((decision) => decision.route),
      ['internal', 'failed', 'internal'],
    );
    const metrics = await router.metrics();
    assert.equal(metrics.value('llm_gateway_router_decisions_total', { outcome: 'instance' }), 2);
    assert.equal(metrics.value('llm_gateway_router_decisions_total', { outcome: 'failed' }), 1);
    assert.equal(metrics.value('llm_gateway_router_instances', { role: 'neutral', state: 'live' }), 2);
  });

  test('refuse a wrong route config before they start, and show no key', { timeout: 60_000 }, async () => {
    const config = JSON.stringify([{ base_url: 'nowhere', api_key: 'sk-TOPSECRET', weight: -1 }]);
    const flags = ['--route-policy', 'weight', '--route-config', config];
    await using router = await startService('router', flags, { until: 'spawned' });
    assert.deepEqual(await router.exited, { code: 64, signal: null });
    assert.match(router.output(), /--route-config\[0\]\.base_url: read "nowhere", allowed: "local" or an absolute/);
    assert.match(router.output(), /--route-config\[0\]\.weight: read -1, allowed: an integer/);
    assert.doesNotMatch(router.output(), /TOPSECRET/);
  });

  test('keep the keys of a right route config out of their log', { timeout: 60_000 }, async () => {
    await using net = await network();
    const config = JSON.stringify([{ base_url: 'http://elsewhere', api_key: 'sk-TOPSECRET', weight: 1 }]);
    const flags = ['--nats-servers', net.nats.url, '--route-policy', 'weight', '--route-config', config];
    await using router = await startService('router', flags);
    assert.doesNotMatch(router.output(), /TOPSECRET/);
  });
});
