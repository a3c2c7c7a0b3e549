import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readGeneration } from './generation.ts';

type Kind = 'chat' | 'completion';

const limits = { models: ['a', 'b'], maxModelLen: 1000, responseTokens: 32 };
const messages = [{ role: 'user', content: 'hello' }];
const read = (body: object, kind: Kind = 'chat') => readGeneration(kind, JSON.stringify(body), limits);
const text = (body: object, kind: Kind = 'completion') =>
  read(body, kind).choices.map((choice) => choice.tokens.join(''));

test('an answer ends by itself or at the limit, and says which', () => {
  const natural = read({ messages }).choices[0];
  assert.deepEqual([natural?.tokens.length, natural?.finishReason], [32, 'stop']);
  const short = read({ messages, max_tokens: 5 }).choices[0];
  assert.deepEqual([short?.tokens.length, short?.finishReason], [5, 'length']);
  const newName = read({ messages, max_tokens: 50, max_completion_tokens: 6 }).choices[0];
  assert.deepEqual([newName?.tokens.length, newName?.finishReason], [6, 'length']);
  const ignoring = read({ messages, max_tokens: 100, ignore_eos: true }).choices[0];
  assert.deepEqual([ignoring?.tokens.length, ignoring?.finishReason], [100, 'length']);
  const least = read({ messages, min_tokens: 40 }).choices[0];
  assert.equal(least?.tokens.length, 40);
  assert.equal(read({ prompt: 'hello' }, 'completion').choices[0]?.tokens.length, 16);
});

test('a stop string ends the answer before itself, also when it spans tokens', () => {
  const [whole = ''] = text({ prompt: 'hello', max_tokens: 20 });
  const [, second = '', third = ''] = whole.split(' ');
  const stop = `${second.slice(-1)} ${third}`;
  const { choices } = read({ prompt: 'hello', max_tokens: 20, stop: ['not in it', stop] }, 'completion');
  assert.equal(choices[0]?.tokens.join(''), whole.slice(0, whole.indexOf(stop)));
  assert.equal(choices[0]?.finishReason, 'stop');
  assert.equal(choices[0]?.stopReason, stop);
});

test('each prompt has n choices, in order, and the first is what it is alone', () => {
  const both = text({ prompt: ['x', 'y'], n: 2 });
  assert.equal(both.length, 4);
  assert.equal(new Set(both).size, 4);
  assert.deepEqual([both[0], both[2]], [...text({ prompt: 'x' }), ...text({ prompt: 'y' })]);
  assert.equal(read({ prompt: [1, 2, 3] }, 'completion').promptTokens, 3);
});

test('parts of a message count as its text', () => {
  const parts = [
    {
      role: 'user',
      content: [
        { type: 'text', text: 'hel' },
        { type: 'text', text: 'lo' },
      ],
    },
  ];
  assert.equal(read({ messages: parts }).promptHash, read({ messages }).promptHash);
});

test('what vLLM refuses is refused with its status', () => {
  const refusals: [object | string, number, RegExp][] = [
    ['{', 400, /JSON decode error/],
    ['[]', 400, /not a JSON object/],
    [{}, 400, /Field required/],
    [{ messages, model: 'c' }, 404, /The model `c` does not exist/],
    [{ messages, model: 1 }, 400, /valid string/],
    [{ messages: [{}] }, 400, /role/],
    [{ messages, max_tokens: 0 }, 400, /max_tokens/],
    [{ messages, max_tokens: 1.5 }, 400, /valid integer/],
    [{ messages, max_tokens: 2000 }, 400, /maximum context length is 1000/],
    [{ messages: [{ role: 'user', content: 'x'.repeat(3000) }] }, 400, /maximum context length/],
    [{ messages, min_tokens: 5, max_tokens: 1 }, 400, /min_tokens must be less than or equal to max_tokens=1, got 5/],
    [{ messages, n: 2, temperature: 0 }, 400, /greedy/],
    [{ messages, n: 0 }, 400, /n must be/],
    [{ messages, stream: 'yes' }, 400, /valid boolean/],
    [{ messages, stream_options: { include_usage: true } }, 400, /Stream options/],
  ];
  for (const [body, status, message] of refusals) {
    const sent = typeof body === 'string' ? body : JSON.stringify(body);
    assert.throws(() => readGeneration('chat', sent, limits), { name: 'Refusal', status, message });
  }
});

test('integers that a double cannot hold are kept in kv_transfer_params', () => {
  const body = '{"messages":[{"role":"user"}],"kv_transfer_params":{"a":9007199254740993,"b":-1.5,"c":7}}';
  assert.deepEqual(readGeneration('chat', body, limits).kvTransferParams, { a: 9_007_199_254_740_993n, b: -1.5, c: 7 });
});
