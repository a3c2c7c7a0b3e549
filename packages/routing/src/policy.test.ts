import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type RouteTable, readRouteTable } from './route-table.ts';

function tableOf(policy: string, entries: readonly object[]): RouteTable {
  const reading = readRouteTable(policy, JSON.stringify(entries), () => '');
  assert.ok('table' in reading, JSON.stringify(reading));
  return reading.table;
}

/** Mulberry32: the same draws in each run, so that a bound that holds once holds for ever. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const half = () => 0.5;

describe('without a policy', () => {
  it('everything is internal', () => {
    const reading = readRouteTable('', '', () => '');
    assert.ok('table' in reading);
    assert.deepEqual(reading.table.choose('any', half), { route: 'internal', endpoint: null });
    assert.deepEqual(reading.table.choose(null, half), { route: 'internal', endpoint: null });
  });
});

describe('the weight policy', () => {
  const draws = 10_000;
  /**
   * Upper bounds of chi-square that a true draw exceeds once in 1,000 times, by degrees of freedom.
   */
  const bounds = [0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88, 29.59];
  const weightSets = [
    [50, 50],
    [1, 1, 1],
    [1, 2, 3, 4],
    [90, 10],
    [99, 1],
    [0, 7, 0, 3, 0],
    [10, 0, 90],
    [1_000_000_000, 500_000_000],
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    [5],
  ];
  for (const [seed, weights] of weightSets.entries()) {
    it(`draws ${draws} times by ${weights.join(':')} within the chi-square bound, and never a zero`, () => {
      const entries = weights.map((weight, index) => ({
        base_url: index === 0 ? 'local' : `http://e${index}`,
        weight,
      }));
      const table = tableOf('weight', entries);
      const random = seeded(seed + 1);
      const counts = weights.map(() => 0);
      for (let draw = 0; draw < draws; draw++) {
        const route = table.choose('m', random);
        assert.ok(route.route !== 'unknown' && route.endpoint !== null);
        assert.equal(route.route, route.endpoint === 0 ? 'internal' : 'external');
        counts[route.endpoint] = (counts[route.endpoint] ?? 0) + 1;
      }
      const sum = weights.reduce((a, b) => a + b);
      let chiSquare = 0;
      let cells = 0;
      for (const [index, weight] of weights.entries()) {
        const count = counts[index] ?? 0;
        if (weight === 0) {
          assert.equal(count, 0);
          continue;
        }
        const expected = (draws * weight) / sum;
        chiSquare += (count - expected) ** 2 / expected;
        cells += 1;
      }
      const bound = bounds[cells - 1] ?? Number.NaN;
      assert.ok(chiSquare <= bound, `chi-square ${chiSquare} over ${bound}: ${counts}`);
    });
  }

  it('covers the whole range of random numbers with the shares in config order', () => {
    const table = tableOf('weight', [
      { base_url: 'http://a', weight: 1 },
      { base_url: 'http://b', weight: 0 },
      { base_url: 'local', weight: 3 },
    ]);
    assert.deepEqual(
      table.choose(null, () => 0),
      { route: 'external', endpoint: 0 },
    );
    assert.deepEqual(
      table.choose(null, () => 0.2499),
      { route: 'external', endpoint: 0 },
    );
    assert.deepEqual(
      table.choose(null, () => 0.25),
      { route: 'internal', endpoint: 2 },
    );
    assert.deepEqual(
      table.choose(null, () => 1 - 2 ** -53),
      { route: 'internal', endpoint: 2 },
    );
  });

  it('knows no route when the weights sum to zero', () => {
    const table = tableOf('weight', [{ base_url: 'local' }, { base_url: 'http://b', weight: 0, fallback: true }]);
    assert.deepEqual(table.choose('m', half), { route: 'unknown' });
  });
});

describe('the prefix policy', () => {
  it('takes aliases as exact patterns of their row, which need not have another', () => {
    const { choose } = tableOf('prefix', [
      { base_url: 'local', prefix: '*', aliases: ['fast'] },
      { base_url: 'https://a', aliases: ['gpt-4o', 'qwen'] },
      { base_url: 'https://b', prefix: 'qwen', aliases: ['fast'] },
      { base_url: 'https://c', prefix: 'gpt-4*' },
    ]);
    const rowOf = (model: string) => {
      const route = choose(model, half);
      return route.route === 'unknown' ? route.route : route.endpoint;
    };
    assert.deepEqual(['fast', 'gpt-4o', 'gpt-4', 'qwen', 'fast-2', 'Fast'].map(rowOf), [0, 1, 3, 1, 0, 0]);
  });

  const choose = (prefixes: readonly string[], model: string | null) =>
    tableOf(
      'prefix',
      prefixes.map((prefix, index) => ({ base_url: `http://e${index}`, prefix })),
    ).choose(model, half);
  const chosen = (prefixes: readonly string[], model: string | null) => {
    const route = choose(prefixes, model);
    return route.route === 'external' ? prefixes[route.endpoint] : route.route;
  };

  it('prefers an exact name to every wildcard', () => {
    assert.equal(chosen(['Qwen/*', '*', 'Qwen/Qwen3-8B', 'Qwen/Qwen3-8B*'], 'Qwen/Qwen3-8B'), 'Qwen/Qwen3-8B');
  });
  it('takes the longest prefix', () => {
    assert.equal(chosen(['*', 'Qwen/*', 'Qwen/Qwen3-*', 'Qwen/Qwen2*'], 'Qwen/Qwen3-8B'), 'Qwen/Qwen3-*');
  });
  it('takes the first of equals', () => {
    assert.deepEqual(choose(['a*', 'a*'], 'abc'), { route: 'external', endpoint: 0 });
    assert.deepEqual(choose(['*', 'abc', 'abc'], 'abc'), { route: 'external', endpoint: 1 });
  });
  it('takes a lone star for everything, and a pattern for the name it is made of', () => {
    assert.equal(chosen(['*'], 'anything'), '*');
    assert.equal(chosen(['abc*'], 'abc'), 'abc*');
  });
  it('takes a star inside a pattern literally', () => {
    assert.equal(chosen(['a*c'], 'abc'), 'unknown');
    assert.equal(chosen(['a*c'], 'a*c'), 'a*c');
    assert.equal(chosen(['a**'], 'abc'), 'unknown');
    assert.equal(chosen(['a**'], 'a*x'), 'a**');
  });
  it('tells cases apart', () => {
    assert.equal(chosen(['qwen*'], 'Qwen3'), 'unknown');
  });
  it('keeps a request without a model inside, even beside a star', () => {
    assert.equal(chosen(['*'], null), 'internal');
    assert.equal(chosen(['*'], ''), 'internal');
  });
  it('knows no route for a model that nothing matches', () => {
    assert.equal(chosen(['a*', 'b'], 'c'), 'unknown');
  });
  it('never matches a row without a prefix, which is there for the fallback chain', () => {
    const table = tableOf('prefix', [
      { base_url: 'http://a', fallback: true },
      { base_url: 'local', prefix: 'x' },
    ]);
    assert.deepEqual(table.choose('m', half), { route: 'unknown' });
  });
  it('says internal for a local endpoint and names it', () => {
    const table = tableOf('prefix', [
      { base_url: 'http://a', prefix: 'a*' },
      { base_url: 'local', prefix: '*' },
    ]);
    assert.deepEqual(table.choose('b', half), { route: 'internal', endpoint: 1 });
  });

  /** The rule as one reads it: walk all patterns and keep the best. */
  function oracle(patterns: readonly string[], model: string): number | null {
    let best: number | null = null;
    let bestRank = -1;
    for (const [index, pattern] of patterns.entries()) {
      const isWildcard = pattern.length > 0 && pattern[pattern.length - 1] === '*';
      const stem = isWildcard ? pattern.substring(0, pattern.length - 1) : pattern;
      const matches = isWildcard ? model.indexOf(stem) === 0 : pattern !== '' && model === pattern;
      const rank = isWildcard ? stem.length : Number.MAX_SAFE_INTEGER;
      if (matches && rank > bestRank) {
        best = index;
        bestRank = rank;
      }
    }
    return best;
  }

  it('agrees with an independent oracle for any patterns and model', () => {
    // A small alphabet, so that patterns meet models often.
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'A', '/', '*', '😀'), maxLength: 5 });
    const patterns = fc.array(
      fc.tuple(text, fc.constantFrom('', '*')).map(([stem, end]) => stem + end),
      {
        minLength: 1,
        maxLength: 12,
      },
    );
    const model = fc.string({ unit: fc.constantFrom('a', 'b', 'A', '/', '*', '😀'), minLength: 1, maxLength: 7 });
    fc.assert(
      fc.property(patterns, model, (all, asked) => {
        const expected = oracle(all, asked);
        assert.deepEqual(
          choose(all, asked),
          expected === null ? { route: 'unknown' } : { route: 'external', endpoint: expected },
        );
      }),
      { numRuns: 2000 },
    );
  });
});
