import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CachedShare } from './cached-share.ts';

const asked = { expected: 8000, bytes: 10_000 };

function read(...chunks: string[]) {
  const share = new CachedShare(asked);
  for (const chunk of chunks) share.read(Buffer.from(chunk));
  return share.outcome();
}

test('the cached share of a prompt is read from the usage of an answer', () => {
  const usage = '"usage":{"prompt_tokens":200,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens": 50}}';
  assert.deepEqual(read('data: {"choices":[]}', `data: {${usage}}`, 'data: [DONE]'), { expected: 8000, found: 2500 });
  assert.deepEqual(read('{"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":100}}}'), {
    expected: 8000,
    found: 10_000,
  });
});

test('an engine that says impossible numbers counts as one that had all of its prompt, or said nothing', () => {
  const usage = (cached: string) => `{"usage":{"prompt_tokens":200,"cached_tokens":${cached}}}`;
  for (const cached of ['201', '999999999999', '9'.repeat(400), '1e9', '1.5']) {
    const share = new CachedShare({ expected: 1e300, bytes: 10_000 });
    share.read(Buffer.from(usage(cached)));
    const { expected = 0, found = 0 } = share.outcome() ?? {};
    assert.deepEqual([expected, found <= 10_000], [10_000, true], cached);
    assert.ok((share.cachedTokens ?? 0) <= 200, cached);
  }
  for (const cached of ['-5', '"50"', 'NaN', 'null', '[7]']) assert.equal(read(usage(cached)), null, cached);
  assert.equal(read('{"usage":{"prompt_tokens":0,"cached_tokens":0}}'), null);
});

test('an answer that does not say what was cached tells nothing', () => {
  for (const text of [
    '',
    '{"usage":{"prompt_tokens":200}}',
    '{"cached_tokens":null,"prompt_tokens":5}',
    '"cached_tokens":7',
  ]) {
    assert.equal(read(text), null, text);
  }
});
