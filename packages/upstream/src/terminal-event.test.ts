import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import fc from 'fast-check';
import { TerminalEvent } from './terminal-event.ts';

/** Whether it is seen when `text` comes in pieces that end at `cuts`. */
function isSeen(text: string, cuts: readonly number[] = []): boolean {
  const bytes = Buffer.from(text);
  const events = new TerminalEvent();
  let from = 0;
  for (const to of [...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length]) {
    events.take(bytes, from, to);
    from = to;
  }
  return events.seen;
}

const token = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n';
const named = (name: string, data = '{}') => `event: ${name}\ndata: ${data}\n\n`;

const whole: Record<string, string> = {
  'of chat completions': `${token}${token}data: [DONE]\n\n`,
  'without a blank behind the colon': `${token}data:[DONE]\n\n`,
  'with CRLF': `${token}data: [DONE]\n\n`.replaceAll('\n', '\r\n'),
  'with CR': `${token}data: [DONE]\n\n`.replaceAll('\n', '\r'),
  'with comments': `: ping\n\n${token}: ping\n\ndata: [DONE]\n\n: bye\n\n`,
  'of messages': `${named('message_start')}${named('ping')}${named('message_stop', '{"type":"message_stop"}')}`,
  'of responses': `${named('response.created')}${named('response.completed', `{"response":"${'x'.repeat(200)}"}`)}`,
  'of a response that failed': `${named('response.created')}${named('response.failed')}`,
  'of a response that is incomplete': `${named('response.created')}${named('response.incomplete')}`,
  'with a named event and then [DONE]': `${named('chunk')}data: [DONE]\n\n`,
};
const open: Record<string, string> = {
  'that is empty': '',
  'without its last event': `${token}${token}`,
  'whose last event is not closed': `${token}data: [DONE]\n`,
  'whose last event is torn': `${token}data: [DO`,
  'with the mark in a text': 'data: {"content":"data: [DONE]\\n\\nevent: message_stop\\n"}\n\n',
  'with the mark in a longer line': 'data: [DONE] and more\n\n',
  'of messages that is cut': `${named('message_start')}${named('message_delta')}`,
  'of responses that is cut': `${named('response.created')}${named('response.output_text.delta')}`,
  'whose last event is not closed, of messages': `${named('message_start')}event: message_stop\ndata: {}\n`,
};

describe('the terminal event', () => {
  for (const [texts, expected] of [
    [whole, true],
    [open, false],
  ] as const) {
    for (const [what, text] of Object.entries(texts)) {
      it(`of a stream ${what} is ${expected ? '' : 'not '}seen, however the stream is cut`, () => {
        assert.equal(isSeen(text), expected);
        assert.equal(
          isSeen(
            text,
            Array.from(text, (_, i) => i),
          ),
          expected,
        );
        const events = [...text.matchAll(/\n\n/g)].map(({ index }) => index + 2);
        assert.equal(isSeen(text, events), expected, 'an event in each piece');
        fc.assert(
          fc.property(fc.array(fc.nat(text.length), { maxLength: 6 }), (cuts) => isSeen(text, cuts) === expected),
        );
      });
    }
  }

  it('is looked for within the given bytes alone', () => {
    const bytes = Buffer.from(`event: message_stop\n${named('message_start')}event: message_stop\n`);
    const events = new TerminalEvent();
    const from = bytes.indexOf('event: message_start');
    const to = from + named('message_start').length;
    for (let n = 0; n < 3; n++) events.take(bytes, from, to);
    assert.equal(events.seen, false);
  });

  it('is looked for in event streams that are not compressed', () => {
    const of = (...list: string[]) => TerminalEvent.of(HeaderLines.of(list)) !== undefined;
    assert.ok(of('Content-Type', 'text/event-stream; charset=utf-8'));
    assert.ok(!of('Content-Type', 'application/json'));
    assert.ok(!of());
    assert.ok(!of('Content-Type', 'text/event-stream', 'Content-Encoding', 'gzip'));
  });
});
