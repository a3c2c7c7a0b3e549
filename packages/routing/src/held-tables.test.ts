import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeldTables } from './held-tables.ts';
import { routeChanges } from './route-changes.ts';
import { type RouteTable, readRouteTable } from './route-table.ts';

function table(...rows: readonly object[]): RouteTable {
  const reading = readRouteTable('weight', JSON.stringify(rows), () => '');
  assert.ok('table' in reading);
  return reading.table;
}
const local = (weight: number) => table({ base_url: 'local', weight });

describe('the route tables that a process holds', () => {
  it('are the two newest, and older ones while they are in use', () => {
    const [one, two, three, four] = [local(1), local(2), local(3), local(4)];
    const held = new HeldTables(one, { maxHeld: 8 });
    held.take(two, 0);
    assert.deepEqual(held.generations, [two.generation, one.generation]);
    assert.equal(held.find(one.generation, 1000), one);
    held.take(three, 2000);
    assert.deepEqual(held.generations, [three.generation, two.generation, one.generation]);
    held.take(four, 20_000);
    assert.deepEqual(held.generations, [four.generation, three.generation]);
    assert.equal(held.find(one.generation, 20_000), undefined);
  });

  it('are never more than allowed, whatever is asked for', () => {
    const held = new HeldTables(local(1), { maxHeld: 3 });
    for (let weight = 2; weight < 10; weight++) held.take(local(weight), 0);
    assert.deepEqual(
      held.generations,
      [9, 8, 7].map((weight) => local(weight).generation),
    );
  });

  it('have the newest keys of each generation', () => {
    const held = new HeldTables(table({ base_url: 'http://a', weight: 1, api_key: 'old' }), { maxHeld: 8 });
    const rotated = table({ base_url: 'http://a', weight: 1, api_key: 'new' });
    held.take(rotated, 0);
    assert.equal(held.generations.length, 1);
    assert.equal(held.find(rotated.generation, 0)?.endpoints[0]?.apiKey, 'new');
  });
});

describe('what differs between route configs', () => {
  it('is told by row and field, and of keys only that they changed', () => {
    const before = table(
      { base_url: 'local', weight: 90 },
      { base_url: 'http://a', weight: 10, api_key: 'secret-1' },
      { base_url: 'http://gone', weight: 0 },
    );
    const after = table(
      { base_url: 'http://new', weight: 5, fallback: true },
      { base_url: 'local', weight: 80 },
      { base_url: 'http://a', weight: 10, api_key: 'secret-2' },
    );
    assert.deepEqual(routeChanges(before, after), [
      'row 2 http://gone: removed',
      'row 0 http://new: added, weight 5, fallback',
      'row 1 local: weight 90 -> 80',
      'row 1 local: was row 0',
      'row 2 http://a: key changed',
      'row 2 http://a: was row 1',
    ]);
    assert.deepEqual(routeChanges(before, before), []);
  });

  it('is bounded', () => {
    const many = Array.from({ length: 100 }, (_, at) => ({ base_url: `http://host-${at}`, weight: 1 }));
    const changes = routeChanges(local(1), table(...many));
    assert.equal(changes.length, 21);
    assert.equal(changes.at(-1), 'and 81 more');
  });
});
