import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { comparableUrl, joinUrl, withoutQueryCredentials } from './url.ts';

const chat = '/v1/chat/completions';

describe('joinUrl', () => {
  const rows: readonly [base: string, path: string, url: string][] = [
    ['https://a', chat, 'https://a/v1/chat/completions'],
    ['https://a/', chat, 'https://a/v1/chat/completions'],
    ['https://a/v1', chat, 'https://a/v1/chat/completions'],
    ['https://a/v1/', chat, 'https://a/v1/chat/completions'],
    ['https://a/compatible-mode', chat, 'https://a/compatible-mode/v1/chat/completions'],
    ['https://a/compatible-mode/v1', chat, 'https://a/compatible-mode/v1/chat/completions'],
    ['https://x/api/v3', chat, 'https://x/api/v3/chat/completions'],
    ['https://x/api/v12/', chat, 'https://x/api/v12/chat/completions'],
    ['https://a/v1', '/v1beta/x', 'https://a/v1/v1beta/x'],
    ['https://a/v1', '/v1', 'https://a/v1'],
    ['https://a/v1', '/v1?x=1', 'https://a/v1?x=1'],
    ['https://a/v1', '/tokenize', 'https://a/v1/tokenize'],
    ['https://a/v1', '/v1/v1/x', 'https://a/v1/v1/x'],
    ['https://a', '/v1/models?limit=2&after=/v1/x', 'https://a/v1/models?limit=2&after=/v1/x'],
    ['https://a/v1', '/v1/models?limit=2&after=/v1/x', 'https://a/v1/models?limit=2&after=/v1/x'],
    ['https://a/v1beta', chat, 'https://a/v1beta/v1/chat/completions'],
    ['https://a/xv1', chat, 'https://a/xv1/v1/chat/completions'],
    ['https://a/v', chat, 'https://a/v/v1/chat/completions'],
    ['https://a//', chat, 'https://a//v1/chat/completions'],
    ['http://v1', chat, 'http://v1/v1/chat/completions'],
    ['http://v1/', chat, 'http://v1/v1/chat/completions'],
    ['http://v1:8000/v2', chat, 'http://v1:8000/v2/chat/completions'],
    ['http://[::1]:8000/v1', chat, 'http://[::1]:8000/v1/chat/completions'],
    ['https://a/v1beta/openai', chat, 'https://a/v1beta/openai/chat/completions'],
    ['https://a/v1/openai/', chat, 'https://a/v1/openai/chat/completions'],
    ['https://a/openai', chat, 'https://a/openai/v1/chat/completions'],
    [
      'https://a/openai/deployments/d?api-version=1',
      chat,
      'https://a/openai/deployments/d/chat/completions?api-version=1',
    ],
    ['https://a/v1?k=1&m=', `${chat}?x=2&k=3&m&y`, 'https://a/v1/chat/completions?k=1&m=&x=2&y'],
    ['https://a/v1/?k=/v1/', `${chat}?`, 'https://a/v1/chat/completions?k=/v1/'],
    ['https://a?k=1', chat, 'https://a/v1/chat/completions?k=1'],
    ['https://a?api-version=1', '/x?%61pi-version=7&API%2dVersion=8&y=%61', 'https://a/x?api-version=1&y=%61'],
    ['https://a?%61=1', '/x?a=2&b', 'https://a/x?%61=1&b'],
    ['https://a?a%=1&b=%', '/x?a%=2&%61%=3&b%', 'https://a/x?a%=1&b=%&%61%=3&b%'],
    ['https://a?a+b=1', '/x?a%20b=2&c', 'https://a/x?a+b=1&c'],
  ];
  for (const [base, path, url] of rows) {
    it(`joins ${base} and ${path} to ${url}`, () => assert.equal(joinUrl(base, path), url));
  }

  it('keeps or drops the version where the route says so', () => {
    assert.equal(joinUrl('https://a/inference', chat, false), 'https://a/inference/chat/completions');
    assert.equal(joinUrl('https://a/v1beta/openai', chat, true), 'https://a/v1beta/openai/v1/chat/completions');
    assert.equal(joinUrl('https://a/v3', chat, true), 'https://a/v3/chat/completions');
    assert.equal(joinUrl('https://a', '/tokenize', false), 'https://a/tokenize');
  });

  const segment = fc.oneof(
    fc.constantFrom('v1', 'v3', 'v12', 'v1beta', 'v', 'xv1', 'api', 'compatible-mode'),
    fc.stringMatching(/^[a-z0-9._~-]{1,8}$/),
  );
  const host = fc.constantFrom('a', 'v1', 'x.example:8000', '[::1]:80', '10.0.0.1');
  const query = fc.oneof(fc.constant(''), fc.stringMatching(/^\?[a-z0-9=&/v]{0,12}$/));
  const isVersion = (text: string | undefined) => text !== undefined && /^v[0-9]+$/.test(text);

  it('is, for any base and path, the base segments, the path segments without a second version, and the query', () => {
    fc.assert(
      fc.property(
        host,
        fc.array(segment, { maxLength: 3 }),
        fc.boolean(),
        fc.array(segment, { minLength: 1, maxLength: 4 }),
        query,
        (name, baseSegments, slash, pathSegments, tail) => {
          const base = `${['https://', name].join('')}${baseSegments.map((s) => `/${s}`).join('')}${slash ? '/' : ''}`;
          const kept =
            isVersion(baseSegments.at(-1)) && isVersion(pathSegments[0]) ? pathSegments.slice(1) : pathSegments;
          const expected = `https://${name}${[...baseSegments, ...kept].map((s) => `/${s}`).join('')}${tail}`;
          assert.equal(joinUrl(base, `/${pathSegments.join('/')}${tail}`), expected);
        },
      ),
    );
  });

  it('gives the same URL whether the base ends in a slash or not', () => {
    fc.assert(
      fc.property(host, fc.array(segment, { maxLength: 3 }), segment, query, (name, segments, last, tail) => {
        const base = `http://${[name, ...segments].join('/')}`;
        assert.equal(joinUrl(`${base}/`, `/${last}${tail}`), joinUrl(base, `/${last}${tail}`));
      }),
    );
  });
});

describe('withoutQueryCredentials', () => {
  const rows: readonly [target: string, sent: string][] = [
    [chat, chat],
    [`${chat}?`, `${chat}?`],
    [`${chat}?limit=2&&after=key`, `${chat}?limit=2&&after=key`],
    [`${chat}?key=s`, chat],
    [`${chat}?a=1&api_key=s&%6bey=s&access_token=s&b`, `${chat}?a=1&b`],
    [`${chat}?page_token=p&key`, `${chat}?page_token=p`],
  ];
  for (const [target, sent] of rows) {
    it(`sends ${target} as ${sent}`, () => assert.equal(withoutQueryCredentials(target), sent));
  }
});

describe('comparableUrl', () => {
  const rows: readonly [base: string, comparable: string][] = [
    ['http://a', 'http://a'],
    ['HTTP://A.Example:80/V1/', 'http://a.example/V1/'],
    ['https://a:443', 'https://a'],
    ['https://a:80/v1', 'https://a:80/v1'],
    ['http://[0:0::1]:8000/v1', 'http://[::1]:8000/v1'],
    ['http://a/x%2f/../v1', 'http://a/x%2f/../v1'],
  ];
  for (const [base, comparable] of rows) {
    it(`writes ${base} as ${comparable}`, () => assert.equal(comparableUrl(base), comparable));
  }
});
