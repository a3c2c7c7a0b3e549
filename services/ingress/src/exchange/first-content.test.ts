import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FirstContent } from './first-content.ts';

const role = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n';

const streams: Record<string, readonly [opening: string, first: string]> = {
  chat: [role, 'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'],
  'chat that reasons': [role, 'data: {"choices":[{"delta":{"reasoning_content": "Let me"}}]}\n\n'],
  'chat that calls a tool': [role, 'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a"}]}}]}\n\n'],
  completions: ['data: {"choices":[{"text":"","index":0}]}\n\n', 'data: {"choices":[{"text":" world","index":0}]}\n\n'],
  responses: [
    'event: response.created\ndata: {"response":{"output":[],"text":{"format":{"type":"text"}}}}\n\n',
    'event: response.output_text.delta\ndata: {"delta":"Hi","type":"response.output_text.delta"}\n\n',
  ],
  messages: [
    'data: {"type":"message_start","message":{"content":[]}}\n\ndata: {"content_block":{"type":"text","text":""}}\n\n',
    'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}\n\n',
  ],
};

for (const [name, [opening, first]] of Object.entries(streams)) {
  test(`the first content of ${name} is not its opening event, however it is cut`, () => {
    const whole = new FirstContent();
    assert.equal(whole.isIn(Buffer.from(opening)), false);
    assert.equal(whole.isIn(Buffer.from(first)), true);
    const cut = new FirstContent();
    const bytes = [...Buffer.from(opening + first)].map((byte) => Uint8Array.of(byte));
    const at = bytes.findIndex((byte) => cut.isIn(byte));
    assert.ok(at >= opening.length, `found in byte ${at} of an opening of ${opening.length}`);
  });
}

test('a stream that shows no content in its first quarter of a megabyte is not searched for ever', () => {
  const looking = new FirstContent();
  const nothing = Buffer.alloc(64 * 1024, 0x20);
  for (let i = 0; i < 5; i++) assert.equal(looking.isIn(nothing), false);
  assert.equal(looking.isIn(Buffer.from(streams.chat?.[1] ?? '')), false);
});
