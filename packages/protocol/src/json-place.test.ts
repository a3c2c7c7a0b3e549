import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { jsonMistakePlace } from './json-place.ts';

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe('where a text stops to be JSON', () => {
  it('is the line and the column of the first token that does not fit', () => {
    const places: readonly [string, string | undefined][] = [
      ['', 'line 1, column 1'],
      ['{"a": x}', 'line 1, column 7'],
      ['{\n  "Enable": tru,\n}', 'line 2, column 13'],
      ['{"a": 1,}', 'line 1, column 9'],
      ['[1 2]', 'line 1, column 4'],
      ['[{"a": 1}\n\n', 'line 3, column 1'],
      ['{"a": "b" "c"}', 'line 1, column 11'],
      ['[1]]', 'line 1, column 4'],
      ['[01]', 'line 1, column 3'],
      ['{"a": "never closed}', 'line 1, column 7'],
      [' [{"a": [1, -2.5e3, "\\u00e9"], "b": {}}, [], null]\n', undefined],
    ];
    for (const [text, place] of places) assert.equal(jsonMistakePlace(text), place, text);
  });

  it('is found for whatever JSON.parse refuses, and for nothing else', () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"a"',
      '"\\n"',
      '"\\x"',
      ' ',
      '\n',
      '0',
      '-1.5',
      'null',
      't',
    );
    const broken = fc.tuple(fc.json(), fc.nat(), fc.nat(3), piece).map(([json, at, length, text]) => {
      const place = at % (json.length + 1);
      return json.slice(0, place) + text + json.slice(place + length);
    });
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          broken,
          fc.array(piece).map((all) => all.join('')),
        ),
        (text) => {
          assert.equal(jsonMistakePlace(text) === undefined, isJson(text));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('is found in a large text in time that grows with its length', () => {
    const text = JSON.stringify([{ key: 'x'.repeat(4_000_000) }]);
    assert.equal(jsonMistakePlace(text), undefined);
    assert.equal(jsonMistakePlace(text.slice(0, -2)), `line 1, column ${text.length - 1}`);
    assert.equal(jsonMistakePlace('['.repeat(1_000_000)), 'line 1, column 1000001');
  });
});
