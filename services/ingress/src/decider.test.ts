import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, connectNats, inProcessBus } from '@llm-gateway/bus';
import { type Ask, GatewayError, routeDecide } from '@llm-gateway/protocol';
import { Fleet, routeTable } from '@llm-gateway/routing';
import { freePort, until } from '@llm-gateway/testing';
import { Decider } from './decider.ts';
import { Load } from './load.ts';

const timeoutMs = 50;
const ask: Ask = { model: 'test', stage: 'route', excluded: [] };
const patient = new AbortController().signal;

/** A decider on `bus`, and the batch sizes that its routers answered. */
function scene(bus: Bus) {
  const stack = new DisposableStack();
  const table = routeTable({ routePolicy: '', routeConfig: '' }, () => '');
  const batches: number[] = [];
  const decider = stack.use(
    new Decider({
      ingress: 'ingress-1',
      bus,
      table,
      fleet: new Fleet({ mode: 'neutral', policy: 'round-robin' }),
      load: stack.use(new Load({ ingress: 'ingress-1', bus, onOutcomes: () => {} })),
      timeoutMs,
      observer: { batch: (size) => batches.push(size), degraded: () => {} },
    }),
  );
  return { decider, batches, generation: table.generation, [Symbol.dispose]: () => stack.dispose() };
}

/** A router that answers while `answers()`, and otherwise hangs. Tells how often it was asked. */
function router(bus: Bus, generation: () => string, answers: () => boolean) {
  const asked: number[] = [];
  bus.respond(routeDecide, ({ asks }) => {
    asked.push(asks.length);
    if (!answers()) return new Promise<never>(() => {});
    const decisions = asks.map(() => ({ route: 'unknown' as const }));
    return { router: 'router-1', sequence: asked.length, generation: generation(), decisions };
  });
  return asked;
}

describe('a decider', () => {
  it('is degraded while there is no bus', async () => {
    await using bus = connectNats({ natsServers: `nats://127.0.0.1:${await freePort()}` }, { name: 'test' });
    using parts = scene(bus);
    assert.deepEqual(await parts.decider.decide(ask, patient), { route: 'none' });
    assert.equal(parts.decider.degraded, true);
  });

  it('lets no ask wait for more than the batches that show that the routers hang, however many ask at once', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    const asked = router(
      bus,
      () => parts.generation,
      () => false,
    );
    const startedAtMs = performance.now();
    const decisions = await Promise.all(Array.from({ length: 5120 }, () => parts.decider.decide(ask, patient)));
    assert.ok(decisions.every(({ route }) => route === 'none'));
    assert.equal(asked.length, 3);
    assert.ok(performance.now() - startedAtMs < 6 * timeoutMs);
  });

  it('asks again when a probe is answered', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    let well = false;
    router(
      bus,
      () => parts.generation,
      () => well,
    );
    await Promise.all(Array.from({ length: 2000 }, () => parts.decider.decide(ask, patient)));
    assert.equal(parts.decider.degraded, true);
    well = true;
    await until(() => !parts.decider.degraded);
    assert.deepEqual(await parts.decider.decide(ask, patient), { route: 'unknown' });
    assert.deepEqual(parts.batches, [0, 1]);
  });

  it('stops probing when it is disposed, even while a probe is under way', async () => {
    await using bus = inProcessBus();
    const parts = scene(bus);
    const asked = router(
      bus,
      () => parts.generation,
      () => false,
    );
    await Promise.all(Array.from({ length: 2000 }, () => parts.decider.decide(ask, patient)));
    await until(() => asked.at(-1) === 0);
    parts[Symbol.dispose]();
    const made = asked.length;
    await using watch = inProcessBus();
    using other = scene(watch);
    const later = router(
      watch,
      () => other.generation,
      () => false,
    );
    // Another decider in the same state probes twice meanwhile.
    await Promise.all(Array.from({ length: 2000 }, () => other.decider.decide(ask, patient)));
    await until(() => later.filter((size) => size === 0).length === 2);
    assert.equal(asked.length, made);
  });

  it('gives up when the client leaves', async () => {
    await using bus = inProcessBus();
    using parts = scene(bus);
    router(
      bus,
      () => parts.generation,
      () => false,
    );
    const client = new AbortController();
    const decision = parts.decider.decide(ask, client.signal);
    setImmediate(() => client.abort());
    await assert.rejects(decision, (error) => error instanceof GatewayError && error.code === 'client_closed');
  });
});
