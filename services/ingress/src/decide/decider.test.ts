import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, connectNats, inProcessBus } from '@llm-gateway/bus';
import { Fleet } from '@llm-gateway/fleet';
import { type Ask, type Decision, GatewayError, type Instance, routeDecide } from '@llm-gateway/protocol';
import { routeTable } from '@llm-gateway/routing';
import { freePort, until } from '@llm-gateway/testing';
import { Leaving } from '../http/leaving.ts';
import { Decider } from './decider.ts';
import { Load } from './load.ts';
import { Routers } from './routers.ts';

const timeoutMs = 100;
const ask: Ask = { model: 'test', stage: 'route', excluded: [] };
const patient = new Leaving();
const followed: Instance = {
  id: 'engine-1_dp0',
  roles: ['neutral'],
  host: '10.0.0.1',
  port: 8000,
  kvHost: '10.0.0.1',
  kvPort: 9000,
  dpRank: 0,
  dpSize: 1,
  model: '',
};

/** A decider on `bus`, and the batch sizes that its routers answered. */
function scene(bus: Bus, { routePolicy = '', routeConfig = '' } = {}) {
  const stack = new DisposableStack();
  const table = routeTable({ routePolicy, routeConfig }, () => '');
  const fleet = new Fleet({ mode: 'neutral', policy: 'round-robin' });
  const batches: number[] = [];
  const degraded: string[] = [];
  const decider = stack.use(
    new Decider({
      ingress: 'ingress-1',
      bus,
      table: () => table,
      routers: stack.use(new Routers(bus)),
      fleet,
      load: stack.use(new Load({ ingress: 'ingress-1', bus, onOutcomes: () => {} })),
      leases: null,
      prompts: null,
      timeoutMs,
      observer: { batch: (size) => batches.push(size), degraded: (reason) => degraded.push(reason) },
    }),
  );
  return {
    decider,
    table,
    fleet,
    batches,
    degraded,
    generation: table.generation,
    [Symbol.dispose]: () => stack.dispose(),
  };
}

/** A router that hangs, until it is told to answer. */
class Router {
  /** The sizes of the batches that it was asked. */
  readonly asked: number[] = [];
  #answers = Promise.withResolvers<void>();

  constructor(bus: Bus, generation: string) {
    bus.respond(routeDecide, async ({ asks }) => {
      this.asked.push(asks.length);
      await this.#answers.promise;
      const decisions = asks.map(() => ({ route: 'unknown' as const }));
      return { router: 'router-1', sequence: this.asked.length, generation, decisions };
    });
  }

  answer(): void {
    this.#answers.resolve();
  }

  [Symbol.dispose](): void {
    this.answer();
  }
}

describe('a decider', () => {
  it('is degraded while there is no bus', async () => {
    await using bus = connectNats({ natsServers: `nats://127.0.0.1:${await freePort()}` }, { name: 'test' });
    using parts = scene(bus);
    assert.deepEqual(await parts.decider.decide(ask, parts.table, { signal: patient }), { route: 'none' });
    assert.equal(parts.decider.degraded, true);
  });

  it('lets no ask wait for more than the batches that show that the routers hang, however many ask at once', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    using router = new Router(bus, parts.generation);
    const decisions = await Promise.all(
      Array.from({ length: 5120 }, () => parts.decider.decide(ask, parts.table, { signal: patient })),
    );
    assert.ok(decisions.every(({ route }) => route === 'none'));
    // An empty one is a probe, for which no ask waits.
    assert.equal(router.asked.filter((size) => size > 0).length, 3);
  });

  it('asks again when a probe is answered', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    using router = new Router(bus, parts.generation);
    await Promise.all(Array.from({ length: 2000 }, () => parts.decider.decide(ask, parts.table, { signal: patient })));
    assert.equal(parts.decider.degraded, true);
    router.answer();
    await until(() => !parts.decider.degraded);
    assert.deepEqual(await parts.decider.decide(ask, parts.table, { signal: patient }), { route: 'unknown' });
    assert.deepEqual(parts.batches, [1]);
  });

  it('stops probing when it is disposed, even while a probe is under way', async () => {
    await using bus = inProcessBus();
    const parts = scene(bus);
    using router = new Router(bus, parts.generation);
    await Promise.all(Array.from({ length: 2000 }, () => parts.decider.decide(ask, parts.table, { signal: patient })));
    await until(() => router.asked.at(-1) === 0);
    parts[Symbol.dispose]();
    const made = router.asked.length;
    await using watch = inProcessBus();
    using other = scene(watch);
    using otherRouter = new Router(watch, other.generation);
    // Another decider in the same state probes twice meanwhile.
    await Promise.all(Array.from({ length: 2000 }, () => other.decider.decide(ask, other.table, { signal: patient })));
    await until(() => otherRouter.asked.filter((size) => size === 0).length === 2);
    assert.equal(router.asked.length, made);
  });

  it('takes no address from a router but that of an instance that it follows itself', async () => {
    await using bus = inProcessBus();
    const endpoints = [
      { base_url: 'http://a', weight: 1 },
      { base_url: 'local', weight: 0 },
    ];
    using parts = scene(bus, { routePolicy: 'weight', routeConfig: JSON.stringify(endpoints) });
    const { decider, table, fleet, generation, degraded } = parts;
    fleet.reset([followed]);
    let answer: Decision = { route: 'none' };
    bus.respond(routeDecide, ({ asks }) => {
      return { router: 'router-1', sequence: 1, generation, decisions: asks.map(() => answer) };
    });
    const { id, host, port, kvHost, kvPort } = followed;
    const own = { id, host, port, kvHost, kvPort };
    const pair = { route: 'pair', prefill: own, decode: own } as const;
    const right: Decision[] = [
      { route: 'internal', instance: own },
      pair,
      { ...pair, decode: null },
      { route: 'external', endpoint: 0 },
      { route: 'unknown' },
      { route: 'none' },
    ];
    for (answer of right) assert.deepEqual(await decider.decide(ask, table, { signal: patient }), answer);
    assert.deepEqual(degraded, []);
    const wrong: Decision[] = [
      { route: 'internal', instance: { ...own, id: 'engine-2_dp0' } },
      { route: 'internal', instance: { ...own, host: '10.0.0.66' } },
      { route: 'internal', instance: { ...own, port: 80 } },
      { ...pair, prefill: { ...own, host: '10.0.0.66' } },
      { ...pair, decode: { ...own, kvHost: '10.0.0.66' } },
      { ...pair, decode: { ...own, kvPort: 1 } },
      { route: 'external', endpoint: 1 },
      { route: 'external', endpoint: 2 },
    ];
    const internal: Ask = { ...ask, stage: 'internal' };
    for (answer of wrong)
      assert.deepEqual(await decider.decide(internal, table, { signal: patient }), {
        route: 'internal',
        instance: own,
      });
    assert.deepEqual(
      degraded,
      wrong.map(() => 'not_followed'),
    );
    assert.equal(decider.degraded, false);
  });

  it('is degraded while nobody asks and no router is there, and no longer when one is', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    await until(() => parts.decider.degraded);
    using router = new Router(bus, parts.generation);
    router.answer();
    await until(() => !parts.decider.degraded);
    assert.deepEqual(parts.batches, []);
  });

  it('is not degraded for long after one ask that a router missed, though no other follows', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    using router = new Router(bus, parts.generation);
    await parts.decider.decide(ask, parts.table, { signal: patient });
    assert.equal(parts.decider.degraded, true);
    router.answer();
    await until(() => !parts.decider.degraded);
    assert.deepEqual(await parts.decider.decide(ask, parts.table, { signal: patient }), { route: 'unknown' });
  });

  it('gives up when the client leaves', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    using _router = new Router(bus, parts.generation);
    const client = new Leaving();
    const decision = parts.decider.decide(ask, parts.table, { signal: client });
    setImmediate(() => client.abort());
    await assert.rejects(decision, (error) => error instanceof GatewayError && error.code === 'client_closed');
  });
});
