import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  endToEndHeaders,
  HeaderLines,
  headerValue,
  headerValueText,
  withHeader,
  withoutBlanks,
  withoutHeaders,
} from './header-lines.ts';
import { retryAfterMs } from './retry-after.ts';

describe('endToEndHeaders', () => {
  it('drops hop-by-hop headers in any case, those that Connection names, and those it is told to', () => {
    const raw = [
      'Connection',
      'Close, X-Mine',
      'X-mine',
      '1',
      'TE',
      'trailers',
      'Keep-Alive',
      'timeout=5',
      'Host',
      'h',
      'A',
      '1',
    ];
    assert.deepEqual(endToEndHeaders(raw, new Set(['host'])), ['A', '1']);
  });

  it('keeps order, case and repetition', () => {
    const raw = ['Set-Cookie', 'a', 'B', '1', 'set-cookie', 'b'];
    assert.deepEqual(endToEndHeaders(raw), raw);
  });
});

describe('headerValue', () => {
  it('finds the first by its lower-case name', () => {
    assert.equal(headerValue(['A', '1', 'CONTENT-Type', 'x', 'content-type', 'y'], 'content-type'), 'x');
    assert.equal(headerValue(['A', '1'], 'b'), undefined);
  });
});

describe('withoutHeaders and withHeader', () => {
  const fields = ['A', '1', 'b', '2', 'a', '3', 'B', '4'];

  it('leave out names in any case', () => {
    assert.deepEqual(withoutHeaders(fields, new Set(['b', 'c'])), ['A', '1', 'a', '3']);
  });

  it('set a field once: in its first place and spelling, or at the end', () => {
    assert.deepEqual(withHeader(fields, 'a', 'x'), ['A', 'x', 'b', '2', 'B', '4']);
    assert.deepEqual(withHeader(['b', '2'], 'a', 'x'), ['b', '2', 'a', 'x']);
  });
});

describe('HeaderLines', () => {
  it('are lines, a list, and first values, from whichever they were made', () => {
    const list = ['A', 'b: c', 'a', '', 'X-Y', 'caf\xe9'];
    const lines = 'A: b: c\r\na: \r\nX-Y: caf\xe9\r\n';
    for (const headers of [HeaderLines.of(list), HeaderLines.ofLines(lines)]) {
      assert.deepEqual(headers.list, list);
      assert.equal(headers.lines, lines);
      assert.equal(headers.value('a'), 'b: c');
      assert.equal(headers.value('z'), undefined);
    }
    assert.deepEqual(HeaderLines.ofLines('A:\t b \r\nC:\r\n').list, ['A', 'b', 'C', '']);
    assert.deepEqual(HeaderLines.ofLines('').list, []);
  });

  it('give the same first values from their lines as from their list', () => {
    const name = fc.constantFrom('A', 'a', 'ab', 'AB', 'abc', 'b-a');
    const value = fc.constantFrom('', ' ', 'a', 'ab: c', ' \t x \t', 'ab:', ':');
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value)), name, (fields, sought) => {
        const lines = fields.map(([name, value]) => `${name}:${value}\r\n`).join('');
        const lowerName = sought.toLowerCase();
        const found = HeaderLines.ofLines(lines).value(lowerName);
        assert.equal(found, headerValue(HeaderLines.ofLines(lines).list, lowerName));
      }),
    );
  });

  it('refuse to write what would be another field or another message', () => {
    for (const value of ['a\r\nb: c', 'a\n', '\r', '\0', '\x7f', '\u0161', '\u{1f600}']) {
      assert.throws(() => HeaderLines.of(['a', value]).lines, TypeError, JSON.stringify(value));
    }
    for (const name of ['', 'a b', 'a:', 'a\r\n', '\xe9']) {
      assert.throws(() => HeaderLines.of([name, 'a']).lines, TypeError, JSON.stringify(name));
    }
  });
});

describe('headerValueText', () => {
  it('makes a value of any text, from which the text can be made again', () => {
    assert.equal(headerValueText('pod-0_dp1:8000'), 'pod-0_dp1:8000');
    assert.equal(headerValueText('a b\r\n100%\u{1f600}\x7f'), 'a%20b%0D%0A100%25%F0%9F%98%80%7F');
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const value = headerValueText(text, 1000);
        assert.match(value, /^[\x21-\x7e]*$/);
        assert.equal(decodeURIComponent(value), text);
      }),
    );
  });

  it('is cut, also within a pair of surrogates', () => {
    assert.equal(headerValueText('abc', 2), 'ab');
    assert.match(headerValueText('a\u{1f600}', 2), /^a(?:%[0-9A-F]{2})+$/);
    assert.equal(headerValueText('x'.repeat(1000)).length, 256);
  });
});

describe('withoutBlanks', () => {
  it('strips spaces and tabs, and no other character', () => {
    const text = 'a: \t b \t c\xa0\t';
    assert.equal(withoutBlanks(text, 2, text.length), 'b \t c\xa0');
    assert.equal(withoutBlanks(' \t ', 0, 3), '');
  });
});

describe('retryAfterMs', () => {
  const now = Date.UTC(2026, 0, 1, 12, 0, 0);
  const cases: [string[], number | null][] = [
    [['retry-after', '2'], 2000],
    [['Retry-After', ' 0.5 '], 500],
    [['retry-after', 'Thu, 01 Jan 2026 12:00:03 GMT'], 3000],
    [['retry-after', 'Thursday, 01-Jan-26 12:00:03 GMT'], 3000],
    [['retry-after', 'Thu, 01 Jan 2026 11:00:00 GMT'], 0],
    [['retry-after-ms', '250', 'retry-after', '9'], 250],
    [['retry-after-ms', 'soon', 'retry-after', '1'], 1000],
    [['retry-after', '-5'], null],
    [['retry-after', 'later'], null],
    [['retry-after', ''], null],
    [[], null],
  ];
  for (const [headers, expected] of cases) {
    it(`reads ${JSON.stringify(headers)} as ${expected}`, () => assert.equal(retryAfterMs(headers, now), expected));
  }
});
