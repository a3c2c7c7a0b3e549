import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { scanMembers } from './json-members.ts';

function read(text: string): [string, unknown][] | null {
  const bytes = Buffer.from(text);
  const members = scanMembers(bytes);
  return members === null
    ? null
    : members.map(({ key, valueStart, valueEnd }) => [key, JSON.parse(bytes.toString('utf8', valueStart, valueEnd))]);
}

describe('scanMembers', () => {
  it('finds what JSON.parse finds, in the same order', () => {
    const space = fc.constantFrom(0, 1, '\t', '\r\n', ' \n ');
    fc.assert(
      fc.property(
        fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue(), { noNullPrototype: true }),
        space,
        (object, indent) => {
          const text = JSON.stringify(object, null, indent);
          const expected = Object.entries(JSON.parse(text) as Record<string, unknown>);
          // Integer-like keys come first in a JavaScript object; the text's own order is kept by the scan.
          const sorted = (entries: [string, unknown][]) => [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
          assert.deepEqual(sorted(read(text) ?? []), sorted(expected));
        },
      ),
    );
  });

  it('reads keys by their meaning and keeps repeated ones', () => {
    assert.deepEqual(read('{"mod\\u0065l":"a" , "model" :\t"b"}'), [
      ['model', 'a'],
      ['model', 'b'],
    ]);
  });

  it('notes where the first and the last objects and arrays of a list end, of members that are marked', () => {
    const element = fc.jsonValue({ maxDepth: 2 });
    const space = fc.constantFrom('', ' ', '\n\t');
    const marks = { members: new Set(['list']), first: 2, last: 3, fromBytes: 0 };
    fc.assert(
      fc.property(fc.array(element, { maxLength: 12 }), space, (elements, between) => {
        let text = '{"other":[{}],"list":[';
        const ends: number[] = [];
        for (const [at, one] of elements.entries()) {
          text += `${between}${at > 0 ? ',' : ''}${between}${JSON.stringify(one)}`;
          if (typeof one === 'object' && one !== null) ends.push(Buffer.byteLength(text));
        }
        const members = scanMembers(Buffer.from(`${text}${between}],"last":[[]]}`), marks) ?? [];
        const expected = ends.length <= 5 ? ends : [...ends.slice(0, 2), ...ends.slice(-3)];
        assert.deepEqual(
          members.map(({ elementEnds }) => elementEnds),
          [[], expected, []],
        );
      }),
    );
  });

  it('is not misled by escapes, braces within strings, or long strings', () => {
    const long = `${'x'.repeat(100)}\\"}]{[`;
    assert.deepEqual(read(`{"a":"\\\\","b":"${long}","c":[{"d":"]}"}],"e":-1.5E+3}`), [
      ['a', '\\'],
      ['b', JSON.parse(`"${long}"`)],
      ['c', [{ d: ']}' }]],
      ['e', -1500],
    ]);
  });

  it('finds the end of a string full of quotes and escapes', () => {
    const piece = fc.constantFrom('"', '\\', '\n', 'x', 'some words without any', 'ü');
    fc.assert(
      fc.property(fc.array(piece, { minLength: 300, maxLength: 600 }), (pieces) => {
        const text = pieces.join('');
        assert.deepEqual(read(JSON.stringify({ text, after: 1 })), [
          ['text', text],
          ['after', 1],
        ]);
      }),
      { numRuns: 50 },
    );
  });

  it('finds the end of a string wherever it lies in a long body, and whatever is escaped before it', () => {
    // Text is searched in stretches of 64 KiB: the quote, the backslashes before it and what
    // follows fall on either side of an edge.
    const ends = ['x', '\\', '"', '\\"', '\\\\"', '"\\'];
    for (const edge of [1, 2]) {
      for (let back = 0; back < 24; back++) {
        for (const end of ends) {
          const text = `${'x"'.repeat(4)}${'x'.repeat(edge * 65_536 - back)}${end}`;
          assert.deepEqual(read(JSON.stringify({ text, after: [end] })), [
            ['text', text],
            ['after', [end]],
          ]);
        }
      }
    }
    assert.equal(scanMembers(Buffer.from(`{"text":"${'x'.repeat(200_000)}`)), null);
  });

  it('refuses what is no whole object', () => {
    for (const text of [
      '',
      ' ',
      '[]',
      '"a"',
      '{',
      '{"a"',
      '{"a":',
      '{"a":1',
      '{"a":1,',
      '{"a":1,}',
      '{"a":1}x',
      '{a:1}',
      '{"a" 1}',
      '{"a":"x}',
      '{"a":[1}',
      '{,}',
    ]) {
      assert.equal(scanMembers(Buffer.from(text)), null, text);
    }
  });

  it('never reads past the end or hangs, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...'{}[]",:\\ 1ta'), { maxLength: 40 }), (characters) => {
        const bytes = Buffer.from(characters.join(''));
        for (const member of scanMembers(bytes) ?? []) assert.ok(member.valueEnd <= bytes.length);
      }),
    );
  });
});
