import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ConfigState, type Finding, look, noConfig } from './config-file.ts';

const on = { text: '{"Enable":true,"Target":"http://a","Ratio":50,"EnableLog":true}' };
const off = { text: '{"Enable":false}' };

function after(...findings: readonly Finding[]): ConfigState {
  return findings.reduce(look, noConfig);
}

describe('the mirror config file', () => {
  it('is off, and nothing is wrong, until it appears', () => {
    const state = after('missing', 'missing');
    assert.equal(state, noConfig);
    assert.equal(look(state, on).config.Enable, true);
    assert.equal(look(state, on).generation, 1);
  });

  it('replaces the whole config, so that keys it leaves out go back to zero', () => {
    const { config, generation } = after(on, off);
    assert.equal(generation, 2);
    assert.equal(config.Enable, false);
    assert.equal(config.Target, '');
    assert.equal(config.EnableLog, false);
  });

  it('keeps the last good config when it is deleted, emptied, broken or unreadable later', () => {
    const good = after(on);
    for (const bad of ['missing', { text: '' }, { text: '{' }, { unreadable: 'EACCES' }] as const) {
      const state = look(good, bad);
      assert.equal(state.config, good.config);
      assert.equal(state.generation, 1);
      assert.notEqual(state.mistake, undefined);
    }
  });

  it('is off with a mistake when it is broken from the start', () => {
    const state = after({ text: '{' });
    assert.equal(state.config.Enable, false);
    assert.notEqual(state.mistake, undefined);
  });

  it('finds nothing new in what it found last, so that a mistake is told once', () => {
    for (const finding of [on, 'missing', { text: '{' }, { unreadable: 'EACCES' }] as const) {
      const state = after(off, finding);
      assert.equal(look(state, typeof finding === 'string' ? finding : { ...finding }), state);
    }
  });

  it('is whole again, with no new generation, when the text in effect comes back', () => {
    const state = after(on, 'missing', { ...on });
    assert.equal(state.mistake, undefined);
    assert.equal(state.generation, 1);
  });

  it('takes a new config after a mistake', () => {
    const state = after(on, { text: '{' }, off);
    assert.equal(state.generation, 2);
    assert.equal(state.mistake, undefined);
    assert.equal(state.config.Enable, false);
  });
});
