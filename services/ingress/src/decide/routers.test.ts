import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, inProcessBus } from '@llm-gateway/bus';
import { configHeld, routerBeat } from '@llm-gateway/protocol';
import { until } from '@llm-gateway/testing';
import { Routers } from './routers.ts';

const generation = '0123456789abcdef';
const pools = Array.from({ length: 300 }, (_, at) => `=model-${at}`);
const now = () => performance.now();

/** What routers own, once the last of the names has been received. */
async function heard(bus: Bus, names: readonly string[]): Promise<Routers> {
  const routers = new Routers(bus);
  for (const router of names) bus.publish(routerBeat, { router, generation });
  const [last = ''] = names.slice(-1);
  await until(() => pools.some((pool) => routers.ownerOf(pool, generation, now()) === last));
  return routers;
}

describe('the routers that an ingress receives beats of', () => {
  it('share the pools, and each ingress finds the same owner whatever the order of the beats', async () => {
    await using bus = inProcessBus();
    using one = await heard(bus, ['router-a', 'router-b', 'router-c']);
    using other = await heard(bus, ['router-c', 'router-a', 'router-b']);
    const owners = pools.map((pool) => one.ownerOf(pool, generation, now()));
    assert.deepEqual(
      pools.map((pool) => other.ownerOf(pool, generation, now())),
      owners,
    );
    for (const name of ['router-a', 'router-b', 'router-c']) {
      const share = owners.filter((owner) => owner === name).length;
      assert.ok(share > 60 && share < 140, `${name} owns ${share} of ${pools.length}`);
    }
  });

  it('keep their pools when another one does not answer, and have them back after its next beat', async () => {
    await using bus = inProcessBus();
    using routers = await heard(bus, ['router-a', 'router-b', 'router-c']);
    const before = pools.map((pool) => routers.ownerOf(pool, generation, now()));
    routers.drop('router-b');
    const without = pools.map((pool) => routers.ownerOf(pool, generation, now()));
    for (const [at, owner] of before.entries()) {
      if (owner === 'router-b') assert.notEqual(without[at], 'router-b');
      else assert.equal(without[at], owner);
    }
    bus.publish(routerBeat, { router: 'router-b', generation });
    await until(() => pools.some((pool) => routers.ownerOf(pool, generation, now()) === 'router-b'));
    assert.deepEqual(
      pools.map((pool) => routers.ownerOf(pool, generation, now())),
      before,
    );
  });

  it('are gone when they were silent, or hold another route config', async () => {
    await using bus = inProcessBus();
    using routers = await heard(bus, ['router-a', 'router-b']);
    bus.publish(routerBeat, { router: 'router-b', generation: 'another' });
    await until(() => pools.every((pool) => routers.ownerOf(pool, generation, now()) === 'router-a'));
    assert.equal(routers.ownerOf('any', generation, now() + 3600), undefined);
  });

  it('are no more than there can be, whoever invents names', async () => {
    await using bus = inProcessBus();
    using routers = await heard(bus, ['router-a']);
    for (let at = 0; at < 1000; at++) bus.publish(routerBeat, { router: `invented-${at}`, generation });
    bus.publish(routerBeat, { router: 'router-a', generation: 'another' });
    await until(() => pools.every((pool) => routers.ownerOf(pool, generation, now()) !== 'router-a'));
    const owners = new Set(Array.from({ length: 10_000 }, (_, at) => routers.ownerOf(`${at}`, generation, now())));
    assert.equal(owners.size, 99);
  });

  it('tell which route configs they hold: a pool goes to one that holds the config that is asked by', async () => {
    await using bus = inProcessBus();
    using routers = await heard(bus, ['router-a', 'router-b']);
    const told = { service: 'router', active: 'newer' };
    bus.publish(configHeld, { process: 'router-b', generations: ['newer', generation], ...told });
    // Its beat names the newest one alone, for ingresses that know no more.
    bus.publish(routerBeat, { router: 'router-b', generation: 'newer' });
    await until(() => routers.holding('newer', now()) === 'some');
    assert.equal(routers.holding(generation, now()), 'all');
    assert.equal(routers.holding('older', now()), 'none');
    assert.ok(pools.every((pool) => routers.ownerOf(pool, 'newer', now()) === 'router-b'));
    assert.equal(new Set(pools.map((pool) => routers.ownerOf(pool, generation, now()))).size, 2);
    assert.equal(routers.holding(generation, now() + 3600), 'unknown');
  });
});
