import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { UsageReader } from './usage-reader.ts';

function countsOf(...chunks: readonly (string | Buffer)[]) {
  const reader = new UsageReader();
  for (const chunk of chunks) reader.take(Buffer.from(chunk));
  return reader.counts;
}

const chat = (usage: unknown) => `data: ${JSON.stringify({ id: 'x', choices: [], usage })}\n\n`;
const content = (text: string) =>
  `data: ${JSON.stringify({ choices: [{ delta: { content: text } }], usage: null })}\n\n`;

describe('the usage of an answer', () => {
  it('is read from JSON, with what is cached and what is reasoning', () => {
    const usage = {
      prompt_tokens: 12,
      total_tokens: 30,
      completion_tokens: 18,
      prompt_tokens_details: { cached_tokens: 8 },
      completion_tokens_details: { reasoning_tokens: 5 },
    };
    assert.deepEqual(countsOf(JSON.stringify({ id: 'a', usage, choices: [] }, null, 2)), {
      prompt: 12,
      cached: 8,
      completion: 18,
      reasoning: 5,
    });
  });

  it('is read from embeddings and reranking, which have no answer tokens', () => {
    assert.equal(countsOf('{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}')?.prompt, 7);
    assert.equal(countsOf('{"results":[],"usage":{"total_tokens":9}}')?.prompt, 9);
  });

  it('is the last of a chat stream, also with one in every chunk', () => {
    const counted = (n: number) => chat({ prompt_tokens: 4, completion_tokens: n, total_tokens: 4 + n });
    assert.equal(countsOf(content('a'), content('b'), counted(2), 'data: [DONE]\n\n')?.completion, 2);
    assert.equal(countsOf(counted(1), counted(2), counted(3))?.completion, 3);
    assert.equal(countsOf(content('a')), null);
  });

  it('is put together from both ends of a Messages stream', () => {
    const start = {
      type: 'message_start',
      message: { usage: { input_tokens: 3, cache_read_input_tokens: 90, output_tokens: 1 } },
    };
    const end = { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 40 } };
    const events = [start, end].map((data) => `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`);
    assert.deepEqual(countsOf(...events), { prompt: 93, cached: 90, completion: 40, reasoning: 0 });
  });

  it('is the one of a Responses stream', () => {
    const response = { status: 'completed', usage: { input_tokens: 5, output_tokens: 6, total_tokens: 11 } };
    const event = `event: response.completed\ndata: ${JSON.stringify({ type: 'response.completed', response })}\n\n`;
    assert.deepEqual(countsOf(event), { prompt: 5, cached: 0, completion: 6, reasoning: 0 });
  });

  it('is not what a text says', () => {
    const said = JSON.stringify({ usage: { prompt_tokens: 1, completion_tokens: 1 } });
    const real = chat({ prompt_tokens: 20, completion_tokens: 30 });
    assert.equal(countsOf(content(said)), null);
    assert.equal(countsOf(content(said), real, content(said))?.completion, 30);
    assert.equal(
      countsOf('{"metadata":{"usage":"gold"},"usage":{"prompt_tokens":2,"completion_tokens":3}}')?.prompt,
      2,
    );
    assert.equal(countsOf('{"usage":{"properties":{}},"x":1}'), null);
  });

  it('is found wherever its bytes are torn, and in the framing of chunks', () => {
    const text = `${content('hello')}${chat({ prompt_tokens: 123, completion_tokens: 456 })}data: [DONE]\n\n`;
    fc.assert(
      fc.property(fc.array(fc.nat({ max: text.length }), { maxLength: 6 }), fc.boolean(), (cuts, framed) => {
        const places = [0, ...cuts.toSorted((a, b) => a - b), text.length];
        const pieces = places.slice(1).map((end, at) => text.slice(places[at], end));
        const counts = countsOf(...pieces);
        assert.deepEqual([counts?.prompt, counts?.completion], [123, 456]);
        // In one piece with the framing between the parts; a key that is torn by it is not looked for.
        const inFraming = pieces
          .filter((piece) => piece !== '')
          .map((piece) => `${piece.length.toString(16)}\r\n${piece}\r\n`);
        const whole = pieces.every((piece) => !/"u?s?a?g?e?$/.test(piece) || piece.endsWith('"usage"'));
        if (framed && whole && !cutsKey(pieces)) {
          const read = countsOf(inFraming.join(''));
          assert.deepEqual([read?.prompt, read?.completion], [123, 456]);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('costs nothing for very long objects and binary data', () => {
    assert.equal(countsOf(`{"usage":{"x":"${'y'.repeat(100_000)}"`), null);
    assert.equal(countsOf(Buffer.alloc(10_000, 0xff), Buffer.from('"usag'), Buffer.from('x')), null);
  });
});

/** Whether a border between two pieces lies within the key of the counts. */
function cutsKey(pieces: readonly string[]): boolean {
  let at = 0;
  const text = pieces.join('');
  const key = text.lastIndexOf('"usage"');
  return pieces.some((piece) => {
    at += piece.length;
    return at > key && at < key + '"usage"'.length;
  });
}
