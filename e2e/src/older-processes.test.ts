import assert from 'node:assert/strict';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startEngine, temporaryFolder, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';
import { RawNats } from './raw-nats.ts';

/** As messages were before processes told which route configs they hold. */
interface Address {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly kvHost: string;
  readonly kvPort: number;
}

interface RouteReply {
  readonly router: string;
  readonly sequence: number;
  readonly generation: string;
  readonly decisions: readonly { readonly route: string; readonly instance?: Address; readonly endpoint?: number }[];
}

interface InstancesReply {
  readonly replica: string;
  readonly revision: number;
  readonly storeUp: boolean;
  readonly instances: readonly (Address & { readonly roles: readonly string[]; readonly model: string })[];
}

function routeFile() {
  const path = join(temporaryFolder(), 'routes.json');
  const put = (rows: readonly object[]) => {
    writeFileSync(`${path}.new`, JSON.stringify(rows));
    renameSync(`${path}.new`, path);
  };
  const flags = ['--route-policy', 'prefix', '--route-config', `@${path}`, '--config-refresh-interval-ms', '50'];
  return { put, flags };
}

/** What processes of a service say that they hold, the newest word of each. */
function held(raw: RawNats, service: string): readonly (readonly string[])[] {
  const told = raw.heard('gw.v1.config.held').map(({ payload }) => JSON.parse(payload));
  const newest = new Map(told.filter((one) => one.service === service).map((one) => [one.process, one.generations]));
  return [...newest.values()];
}

async function handlerFailures({ ingress, router, discovery, others }: Gateway): Promise<number> {
  const all = await Promise.all([...ingress, ...router, ...discovery, ...others].map((one) => one.metrics()));
  return all.reduce((sum, one) => sum + one.value('llm_gateway_bus_handler_failures_total'), 0);
}

describe('processes of now beside those of before', { concurrency: 2, timeout: 120_000 }, () => {
  it('an ingress is served by a router that tells nothing of the configs it holds, also when its own changes', async () => {
    await using engine = await startEngine();
    await using other = await startEngine();
    const { put, flags } = routeFile();
    const local = { base_url: 'local', prefix: 'in*' };
    put([local]);
    await using gateway = await startGateway({
      engines: [engine],
      replicas: { router: 0 },
      flags: { ingress: [...flags, '--decision-timeout-ms', '5000'], router: flags },
    });
    using raw = await RawNats.open(gateway.nats.port);
    const [ingress] = gateway.ingress;
    assert.ok(ingress);
    const [[generation = ''] = []] = await until(() => {
      const told = held(raw, 'ingress');
      return told.length > 0 ? told : undefined;
    });
    const { instances } = await raw.request<InstancesReply>('gw.v1.instances.list', {});
    const [instance] = instances;
    assert.ok(instance);
    const { id, host, port, kvHost, kvPort } = instance;

    let sequence = 0;
    const asked: unknown[] = [];
    raw.respond('gw.v1.route.decide', (query) => {
      asked.push(query.generation);
      const asks = query.asks as readonly unknown[];
      const decision = { route: 'internal', instance: { id, host, port, kvHost, kvPort } };
      const decisions = query.generation === generation ? asks.map(() => decision) : [];
      return { router: 'router-0ld', sequence: ++sequence, generation, decisions };
    });
    // It says that it lives, and knows no leases.
    const beating = setInterval(() => raw.publish('gw.v1.router.beat', { router: 'router-0ld', generation }), 200);
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => clearInterval(beating));
    const degraded = async () => (await ingress.metrics()).value('llm_gateway_degraded_decisions_total');
    const waiting = async () => (await ingress.metrics()).value('llm_gateway_route_config_waiting');
    const ask = async () => {
      const { status } = await post(gateway.url, chat({ model: 'in-1' }));
      assert.equal(status, 200);
    };
    await until(async () => {
      await ask();
      return asked.length > 0;
    });
    const before = await degraded();
    for (let at = 0; at < 10; at++) await ask();
    assert.ok(asked.length >= 10);

    put([local, { base_url: other.url, prefix: 'out*' }]);
    await until(async () => (await waiting()) === 1, { what: 'the new config waits for a router that has it' });
    const askedBefore = asked.length;
    for (let at = 0; at < 10; at++) await ask();
    assert.ok(asked.length >= askedBefore + 10);

    await gateway.start('router');
    await until(async () => (await waiting()) === 0, { what: 'the new config is used once a router has it' });
    for (let at = 0; at < 10; at++) await ask();
    assert.equal((await post(gateway.url, chat({ model: 'out-1' }))).status, 200);
    assert.equal(other.requests.length, 1);
    assert.equal(await degraded(), before);
    assert.deepEqual(new Set(asked), new Set([generation]), 'it was asked by its own config alone');
    assert.equal(await handlerFailures(gateway), 0);
  });

  it('an ingress of before is served by discovery, routers and retry workers, also when their config changes', async () => {
    await using engine = await startEngine();
    const { put, flags } = routeFile();
    const rows = [
      { base_url: 'local', prefix: 'in*' },
      { base_url: engine.url, prefix: 'out*' },
      { base_url: `${engine.url}/fallback`, fallback: true },
    ];
    put(rows);
    await using gateway = await startGateway({
      engines: [engine],
      replicas: { ingress: 0, router: 2 },
      with: ['retry-worker'],
      flags: { router: flags, 'retry-worker': flags },
    });
    using raw = await RawNats.open(gateway.nats.port);
    const ingress = 'ingress-0ld';
    const list = await raw.request<InstancesReply>('gw.v1.instances.list', {});
    assert.equal(list.storeUp, true);
    assert.deepEqual(
      list.instances.map(({ host, port }) => `${host}:${port}`),
      [engine.address],
    );
    // Its own config gives it this name.
    const beat = await until(() => raw.heard('gw.v1.router.beat').at(-1));
    const { generation } = JSON.parse(beat.payload);
    const asks = ['in-1', 'out-1', 'elsewhere'].map((model) => ({ model, stage: 'route', excluded: [] }));
    const decide = (by: string) => raw.request<RouteReply>('gw.v1.route.decide', { ingress, generation: by, asks });
    const isServed = async () => {
      const reply = await decide(generation);
      assert.equal(reply.generation, generation);
      assert.deepEqual(
        reply.decisions.map(({ route, endpoint }) => endpoint ?? route),
        ['internal', 1, 'unknown'],
      );
      assert.equal(reply.decisions[0]?.instance?.port, engine.port);
      raw.publish('gw.v1.load.report', {
        ingress,
        seen: { [reply.router]: reply.sequence },
        inFlight: { [String(list.instances[0]?.id)]: 1 },
      });
      raw.publish('gw.v1.outcome.report', {
        ingress,
        outcomes: [{ instance: list.instances[0]?.id, failures: 0, succeeded: true, busy: 0 }],
      });
    };
    for (let at = 0; at < 4; at++) await isServed();
    const pools = [{ role: 'neutral', model: 'in-1', count: 4 }];
    const { router } = await decide(generation);
    const lease = await raw.request<{ leases: readonly { picks: readonly number[] }[] }>(
      `gw.v1.route.lease.${router}`,
      { ingress, generation, pools },
    );
    assert.equal(lease.leases[0]?.picks.length, 4);
    const strange = await decide('ffffffffffffffff');
    assert.deepEqual([strange.decisions, strange.generation], [[], generation]);

    const endpointGeneration = await until(() => held(raw, 'retry-worker')[0]?.[0]);
    const offer = () =>
      raw.request<{ accepted: boolean; url?: string }>('gw.v1.retry.offer', {
        ...{ requestId: 'r', generation: endpointGeneration, endpoint: 2, retryAfterMs: 10, deadlineMs: 5000 },
        ...{ calls: 1, maxCalls: 2, bodyBytes: 10 },
      });
    assert.match((await offer()).url ?? '', /^http:\/\/.*\/jobs\//);

    put([...rows, { base_url: engine.url, prefix: 'new*' }]);
    await until(() => [...held(raw, 'router'), ...held(raw, 'retry-worker')].every(({ length }) => length === 2), {
      what: 'all of them hold the old config and the new one',
    });
    for (let at = 0; at < 4; at++) await isServed();
    assert.equal((await offer()).accepted, true);
    const newest = held(raw, 'router')[0]?.[0];
    assert.deepEqual((await decide('ffffffffffffffff')).generation, newest);
    assert.equal(await handlerFailures(gateway), 0);
  });
});
