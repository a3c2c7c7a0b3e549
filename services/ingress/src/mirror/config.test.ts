import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mirroringOff, readMirrorConfig } from './config.ts';

function mistakeIn(config: unknown): string {
  const read = readMirrorConfig(typeof config === 'string' ? config : JSON.stringify(config));
  assert.ok('mistake' in read, `${JSON.stringify(config)} should be refused`);
  return read.mistake;
}

function configIn(text: string) {
  const read = readMirrorConfig(text);
  assert.ok('config' in read, 'mistake' in read ? read.mistake : '');
  return read.config;
}

function configOf(config: unknown) {
  return configIn(JSON.stringify(config));
}

describe('the mirror config', () => {
  it('reads the example of the guide', () => {
    const example = {
      Enable: true,
      Target: 'http://mirror-target:8000',
      Ratio: 10,
      Timeout: 5000,
      Authorization: '',
      EnableLog: true,
    };
    assert.deepEqual(configOf(example), { ...example, ForwardAuth: false, Compare: false });
  });

  it('matches keys without regard to case, ignores unknown ones and takes missing ones and nulls as zero', () => {
    assert.deepEqual(configOf({ enable: true, TARGET: 'https://a/v1', rAtIo: 0.5, Unknown: [1], timeout: null }), {
      ...mirroringOff,
      Enable: true,
      Target: 'https://a/v1',
      Ratio: 0.5,
    });
    assert.deepEqual(configOf({}), mirroringOff);
  });

  it('lets the last of two spellings of a key count', () => {
    const lastCounts = { '{"Ratio":1,"ratio":2}': 2, '{"Ratio":0,"ratio":0,"Timeout":1,"Ratio":100}': 100 };
    for (const [text, Ratio] of Object.entries(lastCounts)) assert.equal(configIn(text).Ratio, Ratio, text);
  });

  it('takes ratios outside of 0 to 100', () => {
    for (const Ratio of [-1, 0, 100, 250.5]) assert.equal(configOf({ Ratio }).Ratio, Ratio);
  });

  it('refuses what is not a JSON object', () => {
    for (const text of ['', ' \n', '{', '[]', 'null', '"x"', '{"Enable":true']) mistakeIn(text);
  });

  it('refuses values of a wrong type and names the key', () => {
    assert.match(mistakeIn({ enable: 'true' }), /Enable/);
    assert.match(mistakeIn({ Ratio: '10' }), /Ratio/);
    assert.match(mistakeIn({ Timeout: -1 }), /Timeout/);
    assert.match(mistakeIn({ Target: 1, EnableLog: 0 }), /Target.*EnableLog/);
  });

  it('needs a usable target only when it is enabled', () => {
    const targets = [
      '',
      'a:80',
      '/x',
      'ftp://a',
      'http://',
      'http:///x',
      'http://a?b',
      'http://a#b',
      'http://u:p@a',
      'http://a b',
      ' http://a',
      'http://a:99999',
      'http://a/日本',
      'http://a/é',
      'http://a/\0',
      'http://a/\x7f',
      'http://a/x y',
      'http://a/x\\y',
    ];
    for (const Target of targets) {
      assert.match(mistakeIn({ Enable: true, Target }), /Target/, Target);
      assert.equal(configOf({ Enable: false, Target }).Target, Target);
    }
    for (const Target of ['http://a', 'https://a.b:8443/x/', 'http://[::1]:80', 'HTTP://A/v1', 'http://a/%C3%A9/@!~'])
      configOf({ Enable: true, Target });
  });

  it('never repeats a secret', () => {
    const secret = 'Bearer s3cret';
    assert.doesNotMatch(mistakeIn(`{"Authorization":"${secret}" x`), /s3cret/);
    assert.doesNotMatch(mistakeIn({ Authorization: `${secret}\r\nX: 1` }), /s3cret/);
    assert.doesNotMatch(mistakeIn({ Authorization: [secret] }), /s3cret/);
  });
});
