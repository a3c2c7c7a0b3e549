import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FieldInterest, parseRequestHead } from '@llm-gateway/http1';
import { Cors, type CorsSettings, corsMistakes } from './cors.ts';

const usual: CorsSettings = {
  corsAllowOrigin: 'https://app.test, http://localhost:3000',
  corsAllowMethods: 'GET, POST',
  corsAllowHeaders: '*',
  corsMaxAgeS: 60,
};
const noted = ['origin', 'access-control-request-method', 'access-control-request-headers'];
const interest = new FieldInterest({ noted, withheld: [] });
const headOf = (lines: string, method = 'POST') =>
  parseRequestHead(`${method} /v1/models HTTP/1.1\r\nHost: gw${lines}`, interest);
const corsOf = (change: Partial<CorsSettings> = {}) => {
  const cors = Cors.of({ ...usual, ...change });
  assert.ok(cors);
  return cors;
};

describe('CORS', () => {
  it('is off without an origin', () => {
    for (const none of ['', ' ']) assert.equal(Cors.of({ ...usual, corsAllowOrigin: none }), null);
  });

  it('tells an allowed origin that it may read, and caches that this differs by origin', () => {
    const lines = (origin: string) => corsOf().linesFor(origin);
    const read = (origin: string) =>
      `access-control-allow-origin: ${origin}\r\naccess-control-expose-headers: *\r\nvary: Origin\r\n`;
    for (const origin of ['https://app.test', 'http://localhost:3000']) assert.equal(lines(origin), read(origin));
    for (const origin of ['https://app.test.evil', 'http://app.test', 'null', 'https://app.test/']) {
      assert.equal(lines(origin), 'vary: Origin\r\n');
    }
    assert.equal(corsOf().linesFor(undefined), 'vary: Origin\r\n');
    const any = corsOf({ corsAllowOrigin: '*' });
    assert.equal(any.linesFor('null'), 'access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n');
    assert.equal(any.linesFor(undefined), '');
  });

  it('answers a preflight with what the origin may send, and with nothing to any other', () => {
    const asked =
      '\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type';
    const head = headOf(`\r\nOrigin: https://app.test${asked}`, 'OPTIONS');
    assert.ok(corsOf().isPreflight(head));
    // `Origin` is in the lines of each answer already.
    const vary = ['vary', 'Access-Control-Request-Method, Access-Control-Request-Headers'];
    const [, anyVary] = corsOf({ corsAllowOrigin: '*' }).preflight(head).list;
    assert.equal(anyVary, 'Origin, Access-Control-Request-Method, Access-Control-Request-Headers');
    const methods = ['access-control-allow-methods', 'GET, POST'];
    const age = ['access-control-max-age', '60'];
    assert.deepEqual(corsOf().preflight(head).list, [
      ...vary,
      ...methods,
      ...['access-control-allow-headers', 'authorization,content-type'],
      ...age,
    ]);
    const named = corsOf({ corsAllowHeaders: 'x-a,x-b' }).preflight(head).list;
    assert.deepEqual(named, [...vary, ...methods, 'access-control-allow-headers', 'x-a, x-b', ...age]);
    assert.deepEqual(corsOf().preflight(headOf(`\r\nOrigin: https://other.test${asked}`, 'OPTIONS')).list, vary);
    for (const other of [
      headOf(asked, 'OPTIONS'),
      headOf('\r\nOrigin: https://app.test', 'OPTIONS'),
      headOf(`\r\nOrigin: a${asked}`),
    ]) {
      assert.ok(!corsOf().isPreflight(other));
    }
  });

  it('has flags whose mistakes are told', () => {
    assert.deepEqual(corsMistakes(usual), []);
    assert.deepEqual(corsMistakes({ ...usual, corsAllowOrigin: '*' }), []);
    for (const wrong of ['app.test', 'https://app.test/', 'https://a, *', 'https://*.a']) {
      assert.equal(corsMistakes({ ...usual, corsAllowOrigin: wrong }).length, 1, wrong);
    }
    const many = Array.from({ length: 101 }, (_, n) => `https://a${n}`).join();
    assert.match(corsMistakes({ ...usual, corsAllowOrigin: many }).join(), /at most 100/);
    assert.match(corsMistakes({ ...usual, corsAllowMethods: 'GET POST' }).join(), /--cors-allow-methods/);
    assert.match(corsMistakes({ ...usual, corsAllowHeaders: 'a;b' }).join(), /--cors-allow-headers/);
  });
});
