import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Behaviour, behaviours, instanceOf, randomOf, type Simulated, simulate } from './fleet-simulation.ts';

const { live, dead, unreachable, refusing, failing, flaky, hung, slow } = behaviours;

function copies(count: number, behaviour: Behaviour): Behaviour[] {
  return Array.from({ length: count }, () => behaviour);
}

function servedShare({ served, requests }: Simulated): number {
  return served / requests;
}

const minute = { requestsPerS: 100, durationMs: 60_000, seed: 7 };

/** How often `index` was chosen from `fromMs` on. */
function chosen({ choices }: Simulated, index: number, fromMs: number): number {
  return choices.filter((choice) => choice.index === index && choice.at >= fromMs).length;
}

describe('a simulated fleet', () => {
  it('serves nearly all with eight of ten dead, unreachable or refusing, under either policy', () => {
    for (const policy of ['round-robin', 'load-balance'] as const) {
      for (const [sick, least] of [
        [dead, 0.97],
        [unreachable, 0.93],
        [refusing, 0.97],
      ] as const) {
        const result = simulate({ ...minute, policy, instances: [...copies(8, sick), ...copies(2, live)] });
        assert.ok(servedShare(result) > least, `${policy} served ${servedShare(result)}`);
      }
    }
  });

  it('serves more by load-balance when half of the calls of many instances fail, or some never answer', () => {
    for (const instances of [
      [...copies(8, failing), ...copies(2, live)],
      [...copies(2, hung), ...copies(2, dead), ...copies(2, slow), ...copies(4, live)],
    ]) {
      const roundRobin = simulate({ ...minute, policy: 'round-robin', instances });
      const loadBalance = simulate({ ...minute, policy: 'load-balance', instances });
      assert.ok(servedShare(loadBalance) > servedShare(roundRobin) + 0.1);
    }
  });

  it('serves at least as many by load-balance as by round-robin, whatever the mix', () => {
    const kinds = fc.constantFrom<Behaviour>(live, dead, unreachable, refusing, failing, flaky, slow);
    fc.assert(
      fc.property(
        fc.array(kinds, { minLength: 1, maxLength: 11 }),
        fc.nat(11),
        fc.constantFrom(5, 50, 300),
        fc.nat(1_000_000),
        (others, at, requestsPerS, seed) => {
          const instances = others.toSpliced(at, 0, live);
          const base = { instances, requestsPerS, durationMs: 30_000, seed };
          const roundRobin = simulate({ ...base, policy: 'round-robin' });
          const loadBalance = simulate({ ...base, policy: 'load-balance' });
          // Which instance is ejected first is luck, more so when few requests show what it is.
          const { requests } = roundRobin;
          const luck = 0.04 * requests + 2 * Math.sqrt(requests);
          assert.ok(
            loadBalance.served >= roundRobin.served - luck,
            `${loadBalance.served} and ${roundRobin.served} of ${requests}`,
          );
        },
      ),
      { numRuns: 60, seed: 20 },
    );
  });

  it('finds every instance that recovers again, within the longest rest', () => {
    for (const policy of ['round-robin', 'load-balance'] as const) {
      for (const sick of [dead, unreachable, refusing, failing]) {
        const before: Behaviour = sick;
        const recovering: Behaviour = (random, now) => (now < 60_000 ? before : live)(random, now);
        const instances = [...copies(8, recovering), ...copies(2, live)];
        const result = simulate({ ...minute, policy, instances, durationMs: 180_000 });
        for (let index = 0; index < 8; index++) {
          const count = chosen(result, index, 140_000);
          assert.ok(count > 200, `${policy}: instance ${index} was chosen ${count} times in 40 s`);
        }
      }
    }
  });

  it('ramps a new instance up instead of giving it every request', () => {
    const joinedAt = 10_000;
    const firstSecond = (slowStartMs: number) => {
      let joined = false;
      const result = simulate({
        policy: 'load-balance',
        // The last one is announced later.
        instances: copies(11, () => ({ afterMs: 10_000, outcome: 'succeeded' })),
        requestsPerS: 100,
        durationMs: 60_000,
        seed: 3,
        slowStartMs,
        onRequest: (fleet, now) => {
          if (now < joinedAt) fleet.change([], [instanceOf(10).id]);
          else if (!joined) {
            fleet.change([instanceOf(10)], []);
            joined = true;
          }
        },
      });
      const of = (fromMs: number, toMs: number) => chosen(result, 10, fromMs) - chosen(result, 10, toMs);
      return { atFirst: of(joinedAt, joinedAt + 1000), later: of(50_000, 60_000) };
    };
    assert.ok(firstSecond(0).atFirst > 80);
    const { atFirst, later } = firstSecond(30_000);
    assert.ok(atFirst < 25, `${atFirst} of about 100`);
    // Its share of a thousand requests over 11 instances is 91.
    assert.ok(later > 60, `${later}`);
  });

  it('draws numbers that are spread evenly', () => {
    const random = randomOf(1);
    const mean = Array.from({ length: 10_000 }, random).reduce((sum, number) => sum + number, 0) / 10_000;
    assert.ok(Math.abs(mean - 0.5) < 0.02);
  });
});
