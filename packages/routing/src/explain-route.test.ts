import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { explainRoute, movesBetween } from './explain-route.ts';
import { routeChanges } from './route-changes.ts';
import { type RouteTable, readRouteTable } from './route-table.ts';

function table(policy: string, ...rows: readonly object[]): RouteTable {
  const reading = readRouteTable(policy, rows.length === 0 ? '' : JSON.stringify(rows), () => '');
  assert.ok('table' in reading, JSON.stringify(reading));
  return reading.table;
}

const prefixes = table(
  'prefix',
  { base_url: 'local', prefix: 'qwen*' },
  { base_url: 'https://a/v1', prefix: 'qwen-max' },
  { base_url: 'https://b/v1', prefix: '', fallback: true },
);

describe('where a request would go', () => {
  it('is told by prefix, with the chain behind it', () => {
    const ways = (model: string | null) => explainRoute(prefixes, model, '/v1/chat/completions');
    const fallbacks = ['https://b/v1/chat/completions'];
    assert.deepEqual(ways('qwen-7b'), [
      { row: 0, to: 'internal', share: 1, why: 'qwen* is the longest prefix that matches', fallbacks },
    ]);
    assert.deepEqual(ways('qwen-max'), [
      { row: 1, to: 'https://a/v1/chat/completions', share: 1, why: 'qwen-max matches exactly', fallbacks },
    ]);
    assert.deepEqual(ways('llama'), [{ row: null, to: 'unknown', share: 1, why: 'no prefix matches', fallbacks }]);
    assert.equal(ways(null)[0]?.why, 'a request without a model is internal');
  });

  it('is told by weight, with shares, and without the primary in its own chain', () => {
    const weights = table(
      'weight',
      { base_url: 'local', weight: 3 },
      { base_url: 'https://a/v1?key=secret-1', weight: 1, fallback: true },
    );
    assert.deepEqual(explainRoute(weights, 'any', '/v1/x'), [
      { row: 0, to: 'internal', share: 0.75, why: 'weight 3 of 4', fallbacks: ['https://a/v1/x?…'] },
      { row: 1, to: 'https://a/v1/x?…', share: 0.25, why: 'weight 1 of 4', fallbacks: [] },
    ]);
    const none = table('weight', { base_url: 'https://a', weight: 0, fallback: true });
    assert.deepEqual(
      explainRoute(none, 'any', '/').map(({ to, why }) => [to, why]),
      [['unknown', 'no row has a weight']],
    );
    assert.equal(explainRoute(table(''), 'any', '/')[0]?.why, 'there is no route config');
  });
});

describe('names of models', () => {
  const renamed = table(
    'prefix',
    { base_url: 'local', prefix: 'qwen*', aliases: ['fast'], upstream_model: 'Qwen/Qwen3-8B' },
    { base_url: 'https://b/v1', fallback: true, upstream_model: 'b-small' },
    { base_url: 'https://c/v1', fallback: true },
  );

  it('are told where the upstream knows another one, and an alias is the reason', () => {
    const [way] = explainRoute(renamed, 'fast', '/v1/x');
    assert.deepEqual(way, {
      row: 0,
      to: 'internal',
      share: 1,
      why: 'fast is an alias of the row',
      fallbacks: ['https://b/v1/x', 'https://c/v1/x'],
      upstreamModel: 'Qwen/Qwen3-8B',
      fallbackModels: ['b-small', ''],
    });
    assert.equal(explainRoute(renamed, 'qwen-7b', '/')[0]?.why, 'qwen* is the longest prefix that matches');
    assert.equal(explainRoute(renamed, null, '/')[0]?.upstreamModel, undefined);
  });

  it('move, and their changes are told', () => {
    const before = table(
      'prefix',
      { base_url: 'local', prefix: 'qwen*' },
      { base_url: 'https://b/v1', fallback: true },
    );
    const after = table(
      'prefix',
      { base_url: 'local', prefix: 'qwen*', aliases: ['fast'], upstream_model: 'q' },
      { base_url: 'https://b/v1', fallback: true },
    );
    assert.deepEqual(
      movesBetween(before, after).map(({ models }) => models),
      ['fast'],
    );
    assert.deepEqual(routeChanges(before, after), [
      'row 0 local: upstreamModel "" -> "q"',
      'row 0 local: aliases changed',
    ]);
  });
});

describe('what moves between two route configs', () => {
  it('is each kind of models whose shares differ', () => {
    const after = table(
      'prefix',
      { base_url: 'https://a/v1', prefix: 'qwen*' },
      { base_url: 'https://a/v1', prefix: 'qwen-max' },
      { base_url: 'local', prefix: 'llama' },
    );
    assert.deepEqual(movesBetween(prefixes, after), [
      { models: 'qwen*', before: { internal: 1 }, after: { 'https://a/v1': 1 } },
      { models: 'llama', before: { unknown: 1 }, after: { internal: 1 } },
    ]);
    assert.deepEqual(movesBetween(after, after), []);
  });

  it('is a change of weights', () => {
    const weighed = (weight: number) =>
      table('weight', { base_url: 'local', weight }, { base_url: 'http://a', weight: 1 });
    assert.deepEqual(movesBetween(weighed(1), weighed(3)), [
      { models: '*', before: { internal: 0.5, 'http://a': 0.5 }, after: { internal: 0.75, 'http://a': 0.25 } },
    ]);
  });
});
