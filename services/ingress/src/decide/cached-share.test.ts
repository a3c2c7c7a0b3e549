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
