import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerTokens, countTokens, detokenize, embed, seedOf, tokenize } from './text.ts';

test('tokenizing is reversible for any text, and counts as many tokens as it makes', () => {
  for (const text of ['', 'a', 'ab', 'abc', 'abcd', 'naïve café 東京 🙂', '\0\0\0', 'x'.repeat(1000)]) {
    const tokens = tokenize(text);
    assert.equal(detokenize(tokens), text);
    assert.equal(tokens.length, countTokens(text));
  }
});

test('an id that no text has is refused', () => {
  assert.throws(() => detokenize([2 ** 25]), RangeError);
});

test('equal prompts get equal answers, a longer answer begins as a shorter one', () => {
  const long = answerTokens(seedOf('hello'), 50);
  assert.deepEqual(answerTokens(seedOf('hello'), 20), long.slice(0, 20));
  assert.notDeepEqual(answerTokens(seedOf('hello!'), 50), long);
  assert.ok(!long[0]?.startsWith(' ') && long[1]?.startsWith(' '));
});

test('an embedding is a unit vector of the text', () => {
  const vector = embed('hello', 64);
  assert.equal(vector.length, 64);
  assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-9);
  assert.deepEqual(embed('hello', 64), vector);
  assert.notDeepEqual(embed('world', 64), vector);
});
