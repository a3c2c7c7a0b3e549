import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockKeys, blockTokens } from './block-keys.ts';
import { chatPrompt, completionPrompts, type Prompt } from './prompt.ts';

const chat = (...texts: string[]) => chatPrompt({ messages: texts.map((content) => ({ role: 'user', content })) });
const keysOf = (prompt: Prompt, salt = '') => blockKeys(prompt, salt);
const long = (word: string) => word.repeat(4000);

test('a prompt has a key for each of its full blocks', () => {
  for (const prompt of [chat('x'), chat(long('ab '), long('naïve')), ...completionPrompts({ prompt: long('xyz') })]) {
    assert.equal(keysOf(prompt).length, Math.floor(prompt.tokens / blockTokens));
  }
  const [tokens] = completionPrompts({ prompt: Array.from({ length: 2 * blockTokens }, (_, index) => index) });
  assert.equal(tokens && keysOf(tokens).length, 2);
});

test('prompts share the keys of what they begin with alike, and of no more', () => {
  const [first, same, longer] = [chat(long('a')), chat(long('a')), chat(long('a'), long('b'))].map((one) =>
    keysOf(one),
  );
  assert.deepEqual(first, same);
  assert.deepEqual(longer?.slice(0, first?.length), first);
  const other = keysOf(chat(`x${long('a')}`));
  assert.deepEqual(
    other.filter((key) => first?.includes(key)),
    [],
  );
  const changedLate = keysOf(chat(`${long('a')}x`, long('b')));
  assert.equal(changedLate[0], longer?.[0]);
  assert.equal(changedLate.filter((key) => longer?.includes(key)).length, Math.floor((4 + 1334) / blockTokens));
});

test('another model or salt has other keys, and so has another role', () => {
  const prompt = chat(long('a'));
  assert.notEqual(keysOf(prompt, 'a')[0], keysOf(prompt, 'b')[0]);
  const assistant = chatPrompt({ messages: [{ role: 'assistant', content: long('a') }] });
  assert.notEqual(keysOf(prompt)[0], keysOf(assistant)[0]);
});
