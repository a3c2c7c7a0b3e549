import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { authorityOf, isAuthority, isSameAuthority, originOf, parseTarget, splitUrl } from './authority.ts';

describe('authorityOf and originOf', () => {
  it('put an IPv6 address in brackets, once', () => {
    assert.equal(authorityOf({ host: 'engine', port: 8000 }), 'engine:8000');
    assert.equal(authorityOf({ host: '::1', port: 8000 }), '[::1]:8000');
    assert.equal(originOf({ host: '[fd00::2]', port: 80 }), 'http://[fd00::2]:80');
  });
});

describe('splitUrl', () => {
  it('cuts and changes nothing', () => {
    const url = 'https://a:1/x/../%7e//y?b=/c';
    assert.deepEqual(splitUrl(url), { origin: 'https://a:1', host: 'a:1', path: '/x/../%7e//y?b=/c' });
  });
});

describe('parseTarget', () => {
  const path = '/v1/models';

  it('takes the origin form apart, and the absolute form', () => {
    assert.deepEqual(parseTarget(path), { path, query: '', authority: null });
    assert.deepEqual(parseTarget(`${path}?a=%41?`), { path, query: '?a=%41?', authority: null });
    assert.deepEqual(parseTarget(`http://h:80${path}?a`), { path, query: '?a', authority: 'h:80' });
    assert.deepEqual(parseTarget('HTTPS://[::1]'), { path: '/', query: '', authority: '[::1]' });
    assert.deepEqual(parseTarget('http://h?a=/b'), { path: '/', query: '?a=/b', authority: 'h' });
    assert.deepEqual(parseTarget('//h/x'), { path: '//h/x', query: '', authority: null });
  });

  it('decodes what needs no encoding, and nothing else', () => {
    for (const [written, read] of [
      ['/%76%31/%6dodels', path],
      ['/%7Euser%2D%5f%2e', '/~user-_.'],
      ['/v1%2Fmodels', '/v1%2Fmodels'],
      ['/v1/models%3Fa', '/v1/models%3Fa'],
      ['/%0d%0a%00%20', '/%0d%0a%00%20'],
      ['/%c3%a9', '/%c3%a9'],
      ['/%', '/%'],
      ['/%zz%4', '/%zz%4'],
      ['/%25376', '/%25376'],
    ] as const) {
      assert.equal(parseTarget(written)?.path, read);
    }
  });

  it('is null for every other form', () => {
    for (const target of [
      '',
      '*',
      'v1/models',
      'h:443',
      'ftp://h/',
      'http:///x',
      'http://',
      'http:/h',
      '/a#b',
      'http://h/#',
    ]) {
      assert.equal(parseTarget(target), null, target);
    }
    for (const authority of ['user@h', 'h:x', 'a b', '[::1', 'h\\x']) {
      assert.equal(parseTarget(`http://${authority}/`), null, authority);
    }
  });
});

describe('isAuthority', () => {
  it('takes names and addresses, with and without a port', () => {
    for (const text of ['h', 'a.b-c_d', '10.0.0.1:8000', '[::1]', '[::ffff:1.2.3.4]:80', 'h:', 'h%20', 'xn--a']) {
      assert.ok(isAuthority(text), text);
    }
  });

  it('takes nothing else', () => {
    for (const text of [
      '',
      ':80',
      'a b',
      'h@x',
      'h/x',
      'h:80x',
      'h:123456',
      '::1',
      '[::1',
      '[g]',
      '[]x',
      'a\tb',
      'a\\b',
      'caf\xe9',
    ]) {
      assert.ok(!isAuthority(text), text);
    }
  });
});

describe('isSameAuthority', () => {
  it('heeds neither case nor the default port', () => {
    assert.ok(isSameAuthority('Engine.Local', 'engine.local:80'));
    assert.ok(isSameAuthority('h:', 'h'));
    assert.ok(isSameAuthority('[::A]:80', '[::a]'));
    assert.ok(!isSameAuthority('h:8080', 'h'));
    assert.ok(!isSameAuthority('h', 'x.h'));
  });
});
