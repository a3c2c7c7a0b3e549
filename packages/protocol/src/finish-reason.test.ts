import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FinishReason } from './finish-reason.ts';

function finishReasonOf(...chunks: readonly (string | Buffer)[]): string | null {
  const finder = new FinishReason();
  for (const chunk of chunks) finder.take(Buffer.from(chunk as string));
  return finder.value;
}

const stream = [
  'data: {"choices":[{"index":0,"delta":{"content":"Grüße"},"finish_reason":null}]}\n\n',
  'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}],"usage":null}\n\n',
  'data: [DONE]\n\n',
].join('');

test('a whole answer ends with its finish reason', () => {
  assert.equal(
    finishReasonOf('{"choices":[{"message":{"content":"a"},"finish_reason" : "tool_calls"}]}'),
    'tool_calls',
  );
});

test('an answer without one, cut short or with null, has no finish reason', () => {
  assert.equal(finishReasonOf(''), null);
  assert.equal(finishReasonOf('{"error":{"message":"no"}}'), null);
  assert.equal(finishReasonOf('{"finish_reason":null}'), null);
  assert.equal(finishReasonOf('{"finish_reason":"sto'), null);
});

test('a text that quotes a finish reason is not taken for one', () => {
  const content = JSON.stringify('say "finish_reason":"stop" and "finish_reason": "length"');
  assert.equal(finishReasonOf(`{"content":${content},"finish_reason":null}`), null);
});

test('a stream gives the same finish reason however its bytes are cut', () => {
  const bytes = Buffer.from(stream);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: bytes.length })), (cuts) => {
      const edges = [0, ...cuts.sort((a, b) => a - b), bytes.length];
      const chunks = edges.slice(1).map((end, i) => bytes.subarray(edges[i], end));
      assert.equal(finishReasonOf(...chunks), 'length');
    }),
  );
});
