import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allowedTargets, targetsMistake } from './allowed-targets.ts';

test('a copy goes to a target of the list alone, whatever its path', () => {
  const allows = allowedTargets('http://shadow:8000, https://other/');
  for (const url of ['http://shadow:8000/v1/x?y', 'http://SHADOW:8000/', 'https://other/v1', 'https://other:443/v1']) {
    assert.equal(allows(url), true, url);
  }
  const others = [
    'http://shadow/v1',
    'https://shadow:8000/v1',
    'http://shadow:8000@evil/v1',
    'http://evil/',
    'nonsense',
  ];
  for (const url of others) assert.equal(allows(url), false, url);
  assert.equal(allowedTargets(' ')('http://anything/'), true);
});

test('the list is checked', () => {
  assert.equal(targetsMistake(''), undefined);
  assert.equal(targetsMistake('http://a:1,https://b/'), undefined);
  for (const entry of ['a:1', 'ftp://a', 'http://a/path', 'http://u@a', 'http://a?x', 'http://']) {
    assert.equal(targetsMistake(`http://a,${entry}`), `${entry} is not http://host:port or https://host:port`);
  }
});
