import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endToEndHeaders, headerValue } from './header-lines.ts';
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
