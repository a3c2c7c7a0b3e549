import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Changes, changeMembers, type JsonObject, lastValue, readObject } from './member-changes.ts';

function object(text: string): JsonObject {
  const read = readObject(Buffer.from(text));
  assert.ok(read, text);
  return read;
}

const changed = (text: string, changes: Changes) => changeMembers(object(text), changes).toString();

/** Any spelling of a key that means the same. */
const spelled = (key: string, escaped: boolean) =>
  escaped && key !== ''
    ? `"\\u${key.charCodeAt(0).toString(16).padStart(4, '0')}${JSON.stringify(key.slice(1)).slice(1)}`
    : JSON.stringify(key);

const space = fc.constantFrom('', ' ', '\n', '\t', '\r\n  ');
const key = fc.constantFrom('a', 'b', 'n', 'stream', 'kv_transfer_params', 'constructor', 'toString', 'ü', '');
// V8's own parser is the oracle, and that of Node 26.10 takes an escaped key for `\\` where an
// object of that shape had one: none here has.
const value = fc.oneof(
  fc.json({ maxDepth: 2 }).filter((json) => !json.includes('"\\\\"')),
  fc.constantFrom('9007199254740993', '1.0', '1e2', '"\\u0041\\/"', '"🙂"', '{"n" : [ 1 , {"a":2} ]}', '[ ]'),
);
const member = fc.record({ key, value, escaped: fc.boolean(), before: space, colon: space, after: space });
const changes = fc.dictionary(key, fc.option(value, { nil: null }), { noNullPrototype: true });

type Written = typeof member extends fc.Arbitrary<infer T> ? T : never;
function write(members: readonly Written[], inner: string): string {
  const texts = members.map(
    ({ key, value, escaped, before, colon, after }) =>
      `${before}${spelled(key, escaped)}${colon}:${colon}${value}${after}`,
  );
  return ` {${texts.length === 0 ? inner : texts.join(',')}}\n`;
}

describe('changeMembers', () => {
  it('means what changing the parsed object means, whatever is repeated, escaped or spaced', () => {
    fc.assert(
      fc.property(fc.array(member, { maxLength: 8 }), space, changes, (members, inner, wanted) => {
        const text = write(members, inner);
        const expected = new Map(Object.entries(JSON.parse(text) as object));
        for (const [name, json] of Object.entries(wanted)) {
          if (json === null) expected.delete(name);
          else expected.set(name, JSON.parse(json));
        }
        assert.deepEqual(new Map(Object.entries(JSON.parse(changed(text, wanted)) as object)), expected);
      }),
      { numRuns: 500 },
    );
  });

  it('leaves one occurrence of what it sets and none of what it removes', () => {
    fc.assert(
      fc.property(fc.array(member, { maxLength: 8 }), changes, (members, wanted) => {
        const result = object(changed(write(members, ''), wanted));
        for (const [name, json] of Object.entries(wanted)) {
          const found = result.members.filter((candidate) => candidate.key === name);
          assert.equal(found.length, json === null ? 0 : 1);
        }
      }),
    );
  });

  it('keeps every member that it does not change, byte for byte and in order, and with no changes every byte', () => {
    const raw = ({ bytes, members }: JsonObject) =>
      members.map(({ key, keyStart, valueEnd }) => ({ key, text: bytes.toString('latin1', keyStart, valueEnd) }));
    fc.assert(
      fc.property(fc.array(member, { maxLength: 8 }), space, changes, (members, inner, wanted) => {
        const text = write(members, inner);
        const others = (all: ReturnType<typeof raw>) => all.filter((one) => !Object.hasOwn(wanted, one.key));
        assert.deepEqual(others(raw(object(changed(text, wanted)))), others(raw(object(text))));
        assert.equal(changed(text, {}), text);
        assert.equal(changed(text, { missing: null }), text);
      }),
    );
  });

  it('changes a value where it stands, adds a new one at the end, and keeps the white space around', () => {
    assert.equal(
      changed('{\r\n  "n" : 4 ,\r\n  "seed": 12345678901234567890 , "x":1.0\r\n}', { n: '1', stream: 'false' }),
      '{\r\n  "n" : 1 ,\r\n  "seed": 12345678901234567890 , "x":1.0,"stream":false\r\n}',
    );
  });

  it('fills an empty object and empties a full one', () => {
    assert.equal(changed('{ }', { a: '1', b: '2' }), '{"a":1,"b":2 }');
    assert.equal(changed('{ "a":1 , "b":2 }', { a: null, b: null }), '{  }');
    assert.equal(changed('{"a":1,"b":2}', { a: null, b: null, c: '3' }), '{"c":3}');
  });

  it('takes out the earlier occurrences of what it sets, however they are spelled', () => {
    assert.equal(changed('{"n":2,"a":0,"\\u006e":3,"b":0}', { n: '1' }), '{"a":0,"\\u006e":1,"b":0}');
  });

  it('passes on bytes that are no UTF-8', () => {
    const bytes = Buffer.concat([Buffer.from('{"a":"'), Buffer.of(0xff, 0xc3), Buffer.from('","n":1}')]);
    const read = readObject(bytes);
    assert.ok(read);
    const expected = Buffer.concat([bytes.subarray(0, bytes.length - 2), Buffer.from('2}')]);
    assert.deepEqual(changeMembers(read, { n: '2' }), expected);
  });
});

describe('lastValue', () => {
  it('is the text of the value that a parser takes', () => {
    assert.equal(lastValue(object('{"a":1,"\\u0061": 2.0 }'), 'a')?.toString(), '2.0');
    assert.equal(lastValue(object('{"a":1}'), 'b'), undefined);
  });
});
