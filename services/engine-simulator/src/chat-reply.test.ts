import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chatReply } from './chat-reply.ts';
import { type Generation, readGeneration } from './generation.ts';

const limits = { models: ['m'], maxModelLen: 1000, responseTokens: 8 };

function reply(generation: Generation) {
  return chatReply(generation, { id: 'id-1', createdS: 1, computed: { cachedTokens: undefined } });
}

interface Chunk {
  readonly id: string;
  readonly object: string;
  readonly choices: {
    index: number;
    text?: string;
    delta?: { role?: string; content?: string };
    finish_reason: string | null;
  }[];
  readonly usage?: { completion_tokens: number; total_tokens: number } | null;
}

function replies(kind: 'chat' | 'completion', body: object) {
  const read = (extra: object) => readGeneration(kind, JSON.stringify({ ...body, ...extra }), limits);
  const unary = JSON.parse(reply(read({ stream: false, stream_options: null })).unary());
  const format = reply(read({ stream: true }));
  const steps = Array.from({ length: format.steps }, (_, step) => format.step(step));
  const events = [...format.opening(), ...steps.flat(), ...format.closing()];
  assert.equal(events.pop(), 'data: [DONE]\n\n');
  const chunks = events.map((event): Chunk => {
    assert.match(event, /^data: \{.*\}\n\n$/);
    return JSON.parse(event.slice('data: '.length));
  });
  return { unary, chunks };
}

test('a stream adds up to the unary answer, for chats and completions and each choice', () => {
  const bodies: ['chat' | 'completion', object][] = [
    ['chat', { messages: [{ role: 'user', content: 'x' }], n: 3, max_tokens: 5 }],
    ['chat', { messages: [{ role: 'user', content: 'x' }], n: 2, stop: ' a' }],
    ['completion', { prompt: ['x', 'y', 'z'], max_tokens: 5 }],
    ['completion', { prompt: ['x', 'y', 'z'], max_tokens: 50 }],
  ];
  for (const [kind, body] of bodies) {
    const { unary, chunks } = replies(kind, body);
    for (const choice of unary.choices) {
      const pieces = chunks.flatMap((chunk) => chunk.choices.filter((piece) => piece.index === choice.index));
      const text = pieces.map((piece) => piece.text ?? piece.delta?.content ?? '').join('');
      assert.equal(text, choice.text ?? choice.message.content);
      assert.deepEqual(
        pieces.flatMap((piece) => piece.finish_reason ?? []),
        [choice.finish_reason],
      );
      assert.notEqual(pieces.at(-1)?.finish_reason, null);
      if (kind === 'chat') assert.equal(pieces[0]?.delta?.role, 'assistant');
    }
  }
});

test('usage comes last when asked for, and with every chunk when asked for continuously', () => {
  const messages = [{ role: 'user', content: 'x' }];
  const { unary, chunks } = replies('chat', { messages, max_tokens: 3, stream_options: { include_usage: true } });
  assert.deepEqual(chunks.at(-1)?.choices, []);
  assert.deepEqual(chunks.at(-1)?.usage, unary.usage);
  assert.equal(chunks.filter((chunk) => chunk.usage).length, 1);

  const options = { include_usage: true, continuous_usage_stats: true };
  const continuous = replies('chat', { messages, max_tokens: 3, stream_options: options }).chunks;
  assert.deepEqual(
    continuous.map((chunk) => chunk.usage?.completion_tokens),
    [0, 1, 2, 3, 3],
  );
  const none = replies('chat', { messages, max_tokens: 3 }).chunks;
  assert.ok(none.every((chunk) => !chunk.usage));
});

test('big integers in kv_transfer_params are written as they are', () => {
  const generation = readGeneration('completion', '{"prompt":"x"}', limits);
  const text = reply(generation).unary({ remote_block_ids: [9_007_199_254_740_993n] });
  assert.match(text, /"kv_transfer_params":\{"remote_block_ids":\[9007199254740993\]\}/);
});
