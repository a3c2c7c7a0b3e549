import assert from 'node:assert/strict';
import { test } from 'node:test';
import { simplestValue } from './schema-value.ts';

test('a value has what the schema requires, and no more', () => {
  const cases: [unknown, unknown][] = [
    [{}, {}],
    [undefined, {}],
    [true, {}],
    [{ type: 'object', properties: { a: { type: 'string' }, b: { type: 'number' } }, required: ['a'] }, { a: '' }],
    [
      { properties: { a: { type: 'boolean' } }, required: ['a', 'b'] },
      { a: false, b: {} },
    ],
    [{ type: 'array', items: { type: 'integer' } }, []],
    [{ type: 'array', items: { type: 'integer', minimum: 3 }, minItems: 2 }, [3, 3]],
    [{ prefixItems: [{ const: 'x' }, { type: 'null' }], minItems: 2 }, ['x', null]],
    [{ type: ['null', 'string'], minLength: 3 }, 'aaa'],
    [{ enum: ['red', 'green'] }, 'red'],
    [{ type: 'string', format: 'date-time' }, '2000-01-01T00:00:00Z'],
    [{ type: 'integer', exclusiveMinimum: 2 }, 3],
    [{ type: 'integer', minimum: 4, multipleOf: 5 }, 5],
    [{ type: 'integer', maximum: -2 }, -2],
    [{ type: 'integer', exclusiveMaximum: 0 }, -1],
    [{ type: 'number', minimum: 0.5 }, 0.5],
    [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, ''],
    [{ type: 'object', required: ['a'], oneOf: [{ properties: { a: { const: 1 } } }] }, { a: 1 }],
    [
      {
        allOf: [{ $ref: '#/$defs/a' }, { properties: { b: { type: 'null' } }, required: ['b'] }],
        $defs: { a: { properties: { a: { type: 'boolean' } }, required: ['a'] } },
      },
      { a: false, b: null },
    ],
  ];
  for (const [schema, value] of cases) assert.deepEqual(simplestValue(schema), value, JSON.stringify(schema));
});

test('references are followed, within the schema and not for ever', () => {
  const tree = {
    $ref: '#/$defs/tree',
    $defs: {
      tree: { type: 'object', properties: { next: { $ref: '#/$defs/tree' } }, required: ['next'] },
      'a/b': { const: 1 },
    },
  };
  assert.ok(JSON.stringify(simplestValue(tree)).length < 1000);
  assert.equal(simplestValue({ ...tree, $ref: '#/$defs/a~1b' }), 1);
  assert.deepEqual(simplestValue({ $ref: 'https://example.com/' }), {});
  assert.deepEqual(simplestValue({ $ref: '#/toString' }), {});
  const circle = { $ref: '#/$defs/a', $defs: { a: { allOf: [{ $ref: '#/$defs/a' }] } } };
  assert.doesNotThrow(() => simplestValue(circle));
});

test('a schema cannot make a value of any size', () => {
  const wide = { type: 'array', minItems: 1e9, items: { type: 'array', minItems: 1e9, items: { type: 'string' } } };
  assert.ok(JSON.stringify(simplestValue(wide)).length < 1_000_000);
  assert.ok(String(simplestValue({ type: 'string', minLength: 1e12 })).length <= 1_000_000);
  const heavy = {
    type: 'array',
    minItems: 10_000,
    items: { $ref: '#/$defs/a' },
    $defs: { a: { const: 'x'.repeat(100_000) } },
  };
  assert.ok(JSON.stringify(simplestValue(heavy)).length < 1_100_000);
  const member = simplestValue(JSON.parse('{"properties":{"__proto__":{"const":1}},"required":["__proto__"]}'));
  assert.equal(JSON.stringify(member), '{"__proto__":1}');
});
