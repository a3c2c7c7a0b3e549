import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { conversations, giantSession } from '@llm-gateway/testing';
import fc from 'fast-check';
import { instance, names, prompt, Scene, step } from './choice-scene.ts';
import { type SimulatedChoices, simulateChoices } from './choice-simulation.ts';

describe('the choice by cost', () => {
  it('is the instance with the fewest bytes to compute before the first token, as an oracle without an end says', () => {
    const keys = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 8 });
    const load = fc.record({ inFlight: fc.nat(20), waiting: fc.nat(20 * step) });
    fc.assert(
      fc.property(
        fc.array(fc.record({ on: fc.constantFrom(...names), keys }), { maxLength: 20 }),
        fc.tuple(load, load, load, load),
        keys,
        (placed, loads, asked) => {
          const scene = new Scene();
          for (const { on, keys: given } of placed) scene.caches.placed(on, prompt(given).fingerprints ?? '', 0);
          const of = (gauge: 'inFlight' | 'waiting') =>
            Object.fromEntries(names.map((name, at) => [name, loads[at]?.[gauge] ?? 0]));
          scene.report(of('inFlight'), of('waiting'));
          const costs = names.map((name, at) => {
            const shared = placed
              .filter(({ on }) => on === name)
              .map(({ keys: given }) => given.findIndex((key, index) => key !== asked[index]))
              .map((end, index) =>
                end === -1 ? (placed.filter(({ on }) => on === name)[index]?.keys.length ?? 0) : end,
              );
            const cached = Math.min(Math.max(0, ...shared), asked.length) * step;
            return asked.length * step - cached + (loads[at]?.waiting ?? 0) + 256 * (loads[at]?.inFlight ?? 0);
          });
          const decision = scene.decide(prompt(asked));
          assert.ok(decision.route === 'internal');
          const cost = costs[names.indexOf(decision.instance.id as 'a')];
          assert.equal(cost, Math.min(...costs));
          assert.equal(decision.expected?.cost, cost);
        },
      ),
    );
  });

  it('goes where the prompt lies, until as much waits there as is cached', () => {
    const scene = new Scene();
    const asked = prompt([1, 2, 3, 4]);
    const first = scene.decide(asked);
    assert.ok(first.route === 'internal' && first.expected?.why === 'load');
    scene.report({});
    const again = scene.decide(asked);
    assert.ok(again.route === 'internal' && again.expected !== undefined);
    assert.deepEqual([again.instance.id, again.expected.why], [first.instance.id, 'cache']);
    assert.equal(again.expected.cached, 4 * step);
    scene.report({}, { [first.instance.id]: 4 * step + 1 });
    assert.notEqual(scene.chosen(asked), first.instance.id);
  });

  it('counts its own choices as waiting until a report does', () => {
    const scene = new Scene();
    const chosen = Array.from({ length: 4 }, (_, at) => scene.chosen(prompt([at + 10, 1])));
    assert.deepEqual([...chosen].sort(), [...names]);
  });

  it('keeps health above the cost', () => {
    const scene = new Scene();
    const asked = prompt([1, 2, 3]);
    const holder = scene.chosen(asked);
    scene.report({});
    assert.notEqual(scene.chosen(asked, { excluded: [holder] }), holder);
    const outcomes = [{ instance: holder, failures: 3, succeeded: false, busy: 0 }];
    scene.fleet.outcomes({ ingress: 'a', outcomes }, { now: 0, random: () => 0.5 });
    assert.notEqual(scene.chosen(asked), holder);
  });

  it('raises an instance that is new step by step, also where nothing of a prompt is cached', () => {
    const scene = new Scene({ slowStartMs: 30_000 });
    scene.report(Object.fromEntries(names.map((name) => [name, 1])));
    scene.fleet.change([instance('e')], []);
    assert.notEqual(scene.chosen(prompt([1, 2, 3])), 'e');
  });

  it('begins with nothing for an instance at another address, and keeps what it knows for one that only changed', () => {
    const scene = new Scene({}, [instance('a'), instance('b')]);
    const asked = prompt([1, 2]);
    const holder = scene.chosen(asked);
    scene.report({});
    const share = () => {
      const decision = scene.decide(asked);
      scene.report({});
      return decision.route === 'internal' ? (decision.expected?.cached ?? 0) : 0;
    };
    scene.fleet.change([{ ...instance(holder), kvPort: 1 }], []);
    assert.equal(share(), 2 * step);
    scene.fleet.change(
      [
        { ...instance('a'), port: 9 },
        { ...instance('b'), port: 9 },
      ],
      [],
    );
    assert.equal(share(), 0);
  });

  it('chooses a prefill by its cost and a decode by its requests', () => {
    const instances = [
      instance('p1', ['prefill']),
      instance('p2', ['prefill']),
      instance('d1', ['decode']),
      instance('d2', ['decode']),
    ];
    const scene = new Scene({ mode: 'batched' }, instances);
    scene.report({ d1: 2, d2: 1 }, { p1: 5000 });
    const pair = scene.decide(prompt([1, 2]));
    assert.ok(pair.route === 'pair');
    assert.deepEqual([pair.prefill.id, pair.decode?.id], ['p2', 'd2']);
    scene.report({ d1: 1, d2: 2 }, { p1: 1000 });
    const next = scene.decide(prompt([1, 2]));
    assert.ok(next.route === 'pair');
    assert.deepEqual([next.prefill.id, next.decode?.id, next.expected?.cached], ['p2', 'd1', 2 * step]);
  });

  it('takes the requests of a session to one instance while nothing is known of its prompt, and not above its share', () => {
    for (const policy of ['cache-aware', 'affinity'] as const) {
      const scene = new Scene({ policy });
      const session = { bytes: 100, affinity: 12345 };
      const home = scene.chosen(session);
      scene.report({});
      assert.equal(scene.chosen(session), home);
      scene.report({ [home]: 3 });
      assert.notEqual(scene.chosen(session), home);
      // All agree, whatever they chose before.
      assert.equal(new Scene({ policy: policy === 'affinity' ? 'cache-aware' : 'affinity' }).chosen(session), home);
    }
  });

  it('leaves no instance without requests while others have some waiting, whatever they share', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 16 }),
        fc.nat(7),
        fc.integer({ min: 1, max: 3 }),
        (count, common, topics) => {
          const scene = new Scene(
            {},
            Array.from({ length: count }, (_, at) => instance(`i${at}`)),
          );
          const own = 8 - common;
          const shared = Array.from({ length: common }, (_, at) => at + 1);
          const waiting: Record<string, number> = {};
          const times = new Map<string, number>();
          for (let at = 0; at < 100 * count; at++) {
            const keys = [...(common === 0 ? [] : [at % topics]), ...shared.slice(1)];
            const asked = prompt([...keys, ...Array.from({ length: own }, (_, part) => 100 + own * at + part)]);
            const decision = scene.decide(asked);
            assert.ok(decision.route === 'internal');
            const { id } = decision.instance;
            times.set(id, (times.get(id) ?? 0) + 1);
            waiting[id] = (waiting[id] ?? 0) + asked.bytes - (decision.expected?.cached ?? 0);
            // Each computes what is new of one prompt in the time in which as many requests come as there are instances.
            if (at % count === 0)
              for (const one of Object.keys(waiting)) waiting[one] = Math.max(0, (waiting[one] ?? 0) - own * step);
            scene.report({}, waiting);
          }
          assert.equal(times.size, count);
          assert.ok(Math.min(...times.values()) >= 50, `${Math.min(...times.values())} of 100`);
        },
      ),
      { numRuns: 20 },
    );
  });
});

describe('a replay of conversations over simulated engines', () => {
  const requests = conversations({ seed: 5, durationS: 300, startsPerS: 1.2 });
  const fleet = { requests, instances: 8, prefillTokensPerS: 10_000, kvBlocks: 1500 };
  const run = (policy: Parameters<typeof simulateChoices>[0]['policy'], change = {}) =>
    simulateChoices({ ...fleet, policy, ...change });
  const mean = ({ firstTokens }: SimulatedChoices) => firstTokens.reduce((a, b) => a + b) / firstTokens.length;
  const quantile = ({ firstTokens }: Pick<SimulatedChoices, 'firstTokens'>, q: number) =>
    firstTokens.toSorted((a, b) => a - b)[Math.floor(q * (firstTokens.length - 1))] ?? 0;

  it('begins answers in little more than half the time of round-robin, and nearly as soon as an oracle could', () => {
    const roundRobin = run('round-robin');
    const cacheAware = run('cache-aware');
    const loadBalance = run('load-balance');
    const oracle = run('oracle');
    assert.ok(mean(cacheAware) <= 0.6 * mean(roundRobin), `${mean(cacheAware)} of ${mean(roundRobin)}`);
    assert.ok(quantile(cacheAware, 0.9) <= 0.6 * quantile(roundRobin, 0.9));
    assert.ok(mean(cacheAware) <= 1.1 * mean(oracle), `${mean(cacheAware)} beside ${mean(oracle)}`);
    assert.ok(mean(loadBalance) <= 0.75 * mean(roundRobin), `${mean(loadBalance)} of ${mean(roundRobin)}`);
    assert.ok(cacheAware.hits > 2 * roundRobin.hits, `${cacheAware.hits} and ${roundRobin.hits}`);
  });

  it('leaves the times of all others as they are beside a session of giant prompts', () => {
    const giant = giantSession({ untilS: 300, tokens: 60_000, everyS: 10 });
    const both = [...requests, ...giant].sort((a, b) => a.at - b.at);
    const { firstTokens } = run('cache-aware', { requests: both });
    const own = new Set(giant);
    const others = firstTokens.filter((_, at) => !own.has(both[at] as (typeof both)[number]));
    const p90 = quantile({ firstTokens: others }, 0.9);
    const alone = quantile(run('cache-aware'), 0.9);
    assert.ok(p90 <= 1.1 * alone, `${p90} beside ${alone}`);
  });

  it('is never worse than round-robin where all have one prompt', () => {
    const shared = requests.map((request) => ({ ...request, blocks: request.blocks.map((_, at) => at) }));
    const roundRobin = run('round-robin', { requests: shared });
    const cacheAware = run('cache-aware', { requests: shared });
    assert.ok(mean(cacheAware) <= mean(roundRobin), `${mean(cacheAware)} and ${mean(roundRobin)}`);
    assert.ok(quantile(cacheAware, 0.99) <= quantile(roundRobin, 0.99));
  });
});
