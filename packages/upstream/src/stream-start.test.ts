import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StreamApi } from './stream-event.ts';
import { StreamStart } from './stream-start.ts';

type Taken = ReturnType<StreamStart['take']>;

/** What the pieces of a stream come to, up to the first that is not held. */
function taken(api: StreamApi, pieces: readonly string[]): { last: Taken; held: string; begun: boolean } {
  const start = new StreamStart(api);
  let last: Taken = 'hold';
  for (const piece of pieces) {
    last = start.take(Buffer.from(piece));
    if (last !== 'hold') break;
  }
  return { last, held: start.release()?.toString() ?? '', begun: start.begun };
}

const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
const named = (value: { type: string }) => `event: ${value.type}\n${data(value)}`;
const delta = (fields: object, finish: string | null = null) =>
  data({ id: '1', choices: [{ index: 0, delta: fields, finish_reason: finish }] });
const role = delta({ role: 'assistant', content: '', tool_calls: null });

const preambles: Readonly<Record<StreamApi, readonly string[]>> = {
  chat: [role, delta({ role: 'assistant', content: null }), data({ choices: [], usage: null })],
  completions: [data({ choices: [{ text: '', finish_reason: null }] })],
  messages: [
    named({ type: 'message_start', message: { content: [] } } as { type: string }),
    named({ type: 'content_block_start', content_block: { type: 'text', text: '' } } as { type: string }),
    named({ type: 'content_block_start', content_block: { type: 'thinking', thinking: '' } } as { type: string }),
  ],
  responses: [
    named({ type: 'response.created', response: { error: null, output: [] } } as { type: string }),
    named({ type: 'response.in_progress', response: { error: null } } as { type: string }),
    named({ type: 'response.output_item.added', item: { type: 'message', content: [] } } as { type: string }),
    named({ type: 'response.content_part.added', part: { type: 'output_text', text: '' } } as { type: string }),
  ],
};

const contents: Readonly<Record<StreamApi, readonly string[]>> = {
  chat: [
    delta({ content: 'a' }),
    delta({ content: '', reasoning_content: 'because' }),
    delta({ reasoning: 'because' }),
    delta({ tool_calls: [{ index: 0, function: { name: 'f', arguments: '' } }] }),
    delta({ refusal: 'no' }),
    delta({}, 'stop'),
    'data: [DONE]\n\n',
    'data: {"choices": [{"delta": {"content": "spaced"}}]}\n\n',
    'data: no JSON\n\n',
    data({ object: 'something else' }),
  ],
  completions: [data({ choices: [{ text: 'a' }] }), data({ choices: [{ text: '', finish_reason: 'length' }] })],
  messages: [
    named({ type: 'content_block_delta', delta: { type: 'text_delta', text: 'a' } } as { type: string }),
    named({ type: 'content_block_start', content_block: { type: 'tool_use', name: 'f' } } as { type: string }),
    named({ type: 'message_delta' }),
    named({ type: 'message_stop' }),
  ],
  responses: [
    named({ type: 'response.output_text.delta', delta: 'a' } as { type: string }),
    named({ type: 'response.output_item.added', item: { type: 'function_call', name: 'f' } } as { type: string }),
    named({ type: 'response.reasoning_text.delta', delta: 'a' } as { type: string }),
    named({ type: 'response.completed' }),
  ],
};

const apis = ['chat', 'completions', 'messages', 'responses'] as const;

describe('the start of an event stream', () => {
  for (const api of apis) {
    it(`of ${api} is held until there is content`, () => {
      for (const content of contents[api]) {
        assert.deepEqual(taken(api, [...preambles[api], content]), {
          last: 'content',
          held: preambles[api].join(''),
          begun: true,
        });
        // However it is cut, and with any line ending.
        const bytes = `: hello\n\n${preambles[api].join('')}`;
        assert.equal(taken(api, [...bytes]).last, 'hold');
        assert.equal(taken(api, [...bytes]).held, bytes);
        for (const ending of ['\r\n', '\r']) {
          const other = bytes.replaceAll('\n', ending);
          assert.equal(taken(api, [...other]).last, 'hold');
          assert.equal(taken(api, [other, content]).last, 'content');
        }
        assert.equal(taken(api, [...preambles[api], `${preambles[api][0]}${content}`]).last, 'content');
      }
    });
  }

  it('is not begun by comments and pings, which never make it content', () => {
    const comment = `: ${'x'.repeat(1000)}\n\n`;
    const quiet = taken('chat', new Array(200).fill(comment));
    assert.deepEqual([quiet.last, quiet.begun], ['hold', false]);
    assert.ok(quiet.held.length <= 65_536);
    assert.equal(quiet.held.length % comment.length, 0);
    assert.equal(taken('chat', ['anything']).begun, true);
    const ping = taken('messages', [named({ type: 'ping' }), ': hello\n\n']);
    assert.deepEqual([ping.last, ping.begun], ['hold', false]);
  });

  it('is content beyond 64 KiB', () => {
    const large = delta({ role: 'x'.repeat(40_000) });
    assert.equal(taken('chat', [large]).last, 'hold');
    assert.equal(taken('chat', [large, large]).last, 'content');
    assert.equal(taken('chat', [': ', 'x'.repeat(60_000), 'x'.repeat(60_000), 'x']).last, 'content');
  });

  it('may be an error, with the status that it names and a body in the shape of the API', () => {
    const errorIn = (api: StreamApi, pieces: readonly string[]) => {
      const { last } = taken(api, pieces);
      assert.ok(typeof last === 'object', String(last));
      return { status: last.status, body: JSON.parse(last.body.toString()) };
    };
    const overloaded = { type: 'error', error: { type: 'overloaded_error', message: 'busy' } };
    assert.deepEqual(errorIn('messages', [preambles.messages[0] ?? '', named(overloaded)]), {
      status: 529,
      body: overloaded,
    });
    const internal = { message: 'broken', type: 'InternalServerError', param: null, code: 500 };
    assert.deepEqual(errorIn('chat', [role, data({ error: internal })]), { status: 500, body: { error: internal } });
    for (const [error, status] of [
      [{ message: 'm', code: 429 }, 429],
      [{ message: 'm', code: 'rate_limit_exceeded' }, 429],
      [{ message: 'm', type: 'invalid_request_error', code: null }, 400],
      [{ message: 'm', code: 200 }, 500],
      [{ message: 'm', code: '429' }, 429],
      [{ message: 'm', code: '4290' }, 500],
      [{ message: 'm', code: ' 429' }, 500],
      [{ message: 'm', code: '200' }, 500],
      ['in words', 500],
    ] as const) {
      assert.equal(errorIn('chat', [...data({ error })]).status, status, JSON.stringify(error));
    }
    const old = { object: 'error', message: 'too long', type: 'BadRequestError', param: null, code: 400 };
    assert.deepEqual(errorIn('chat', [role, data(old)]), { status: 400, body: { error: old } });
    const failed = { type: 'response.failed', response: { error: { code: 'server_error', message: 'broken' } } };
    const expected = { error: { code: 'server_error', message: 'broken', type: 'server_error', param: null } };
    assert.deepEqual(errorIn('responses', [preambles.responses[0] ?? '', named(failed)]), {
      status: 500,
      body: expected,
    });
    const told = { type: 'error', code: 'rate_limit_exceeded', message: 'slow down', param: null };
    assert.equal(errorIn('responses', [named(told)]).status, 429);
    assert.equal(errorIn('responses', [named(told)]).body.error.message, 'slow down');
  });

  it('takes a text that quotes an event for what it is', () => {
    const quoting = delta({ role: '{"delta":{"content":"a"}}' });
    assert.equal(taken('chat', [quoting]).last, 'hold');
  });
});
