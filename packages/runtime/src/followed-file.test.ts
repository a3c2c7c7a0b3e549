import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type FileState, type Finding, look, type ReadText, unread } from './followed-file.ts';

const read: ReadText<number> = (text) => (/^\d+$/.test(text) ? { value: Number(text) } : { mistake: 'not a number' });
const nothing = unread(-1);
const one = { text: '1' };
const two = { text: '2' };

function after(...findings: readonly Finding[]): FileState<number> {
  return findings.reduce((state, found) => look(state, found, read), nothing);
}

describe('a followed file', () => {
  it('has its initial value, and nothing is wrong, until it appears', () => {
    const state = after('missing', 'missing');
    assert.equal(state, nothing);
    assert.equal(look(state, one, read).value, 1);
    assert.equal(look(state, one, read).generation, 1);
  });

  it('keeps the last good value when it is deleted, emptied, broken or unreadable later', () => {
    for (const bad of ['missing', { text: '' }, { text: '{' }, { unreadable: 'EACCES' }] as const) {
      const state = look(after(one), bad, read);
      assert.equal(state.value, 1);
      assert.equal(state.generation, 1);
      assert.notEqual(state.mistake, undefined);
    }
  });

  it('has its initial value and a mistake when it is broken from the start', () => {
    const state = after({ text: '{' });
    assert.equal(state.value, -1);
    assert.notEqual(state.mistake, undefined);
  });

  it('finds nothing new in what it found last, so that a mistake is logged once', () => {
    for (const finding of [one, 'missing', { text: '{' }, { unreadable: 'EACCES' }] as const) {
      const state = after(two, finding);
      assert.equal(look(state, typeof finding === 'string' ? finding : { ...finding }, read), state);
    }
  });

  it('is whole again, with no new generation, when the text in effect comes back', () => {
    const state = after(one, 'missing', { ...one });
    assert.equal(state.mistake, undefined);
    assert.equal(state.generation, 1);
  });

  it('takes a new value after a mistake', () => {
    const state = after(one, { text: '{' }, two);
    assert.equal(state.generation, 2);
    assert.equal(state.mistake, undefined);
    assert.equal(state.value, 2);
  });
});
