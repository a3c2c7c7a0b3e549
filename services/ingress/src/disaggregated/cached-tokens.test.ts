import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import fc from 'fast-check';
import { BodyBudget, Holding } from '../body/body-budget.ts';
import { readObject } from '../body/member-changes.ts';
import { CachedTokens, cachedTokensOf, showsUsage } from './cached-tokens.ts';

const json = ['content-type', 'application/json'];
const events = ['content-type', 'text/event-stream; charset=utf-8'];

/** What the client gets of an answer that comes in these pieces, each as it goes out. */
function passed(pieces: readonly (string | Buffer)[], headers: string[], { status = 200, maxBytes = 1e9 } = {}) {
  const budget = new BodyBudget(maxBytes);
  const change = new CachedTokens('7', new Holding(budget));
  change.begin({ status, headers: HeaderLines.of(headers) });
  const out = pieces.map((piece) => change.take(Buffer.from(piece))?.toString() ?? '');
  out.push(change.rest()?.toString() ?? '');
  assert.equal(budget.heldBytes, 0);
  return out;
}
const whole = (text: string, headers = json) => passed([text], headers).join('');

describe('the cached tokens of an answer', () => {
  it('are those of its usage', () => {
    const count = (text: string) => cachedTokensOf(Buffer.from(text));
    assert.equal(count('{"usage" : {"prompt_tokens":9,"prompt_tokens_details":{ "cached_tokens": 16 }}}'), '16');
    assert.equal(count('{"usage":{"prompt_tokens_details":{"cached_tokens":0}}}'), '0');
    for (const details of [
      'null',
      '{}',
      '{"cached_tokens":null}',
      '{"cached_tokens":-1}',
      '{"cached_tokens":1.5}',
      '7',
    ]) {
      assert.equal(count(`{"usage":{"prompt_tokens_details":${details}}}`), null, details);
    }
    for (const text of ['', '{}', '{"usage":null}', '[]', 'data: {}']) assert.equal(count(text), null, text);
  });

  it('are shown to a client that gets a usage', () => {
    const shown = (text: string, isStream: boolean) => {
      const object = readObject(Buffer.from(text));
      assert.ok(object);
      return showsUsage(object, isStream);
    };
    assert.ok(shown('{}', false));
    assert.ok(shown('{"stream_options":{"include_usage": true}}', true));
    for (const options of ['{}', '{"include_usage":false}', 'null', '1']) {
      assert.ok(!shown(`{"stream_options":${options}}`, true), options);
    }
    assert.ok(!shown('{}', true));
  });
});

describe('an answer in one piece', () => {
  it("has the prefill's cached tokens, and every other byte as it was", () => {
    const answer = (count: string) =>
      `{ "id":1.0, "choices":[{"usage":{"prompt_tokens_details":{"cached_tokens":1}}}],\n "usage" : {"prompt_tokens":99, "prompt_tokens_details": {"cached_tokens" : ${count} }, "x":"\\u0041"} }\n`;
    assert.equal(whole(answer('98')), answer('7'));
    const pieces = [...Buffer.from(answer('98'))].map((byte) => Buffer.of(byte));
    assert.equal(passed(pieces, json).join(''), answer('7'));
  });

  it('has them also where the decode reports none', () => {
    for (const details of ['"prompt_tokens_details":null', '"prompt_tokens_details":{}']) {
      assert.equal(
        whole(`{"usage":{${details},"a":1}}`),
        '{"usage":{"prompt_tokens_details":{"cached_tokens":7},"a":1}}',
      );
    }
    assert.equal(whole('{"usage":{"a":1}}'), '{"usage":{"a":1,"prompt_tokens_details":{"cached_tokens":7}}}');
  });

  it('goes on as it is when it has no usage, is no JSON, is compressed, an error, or more than may be held', () => {
    const usage = '{"usage":{"prompt_tokens":1}}';
    for (const text of ['{"usage":null}', '{"a":1}', '{"usage":{', 'x']) assert.equal(whole(text), text);
    assert.equal(whole(usage, [...json, 'content-encoding', 'gzip']), usage);
    assert.equal(whole(usage, ['content-type', 'text/plain']), usage);
    assert.equal(passed([usage], json, { status: 400 }).join(''), usage);
    const [first, ...rest] = passed(['{"usage":', '{"prompt_tokens":1}}'], json, { maxBytes: 12 });
    assert.deepEqual([first, ...rest], ['', usage, '']);
  });
});

describe('a stream', () => {
  const token = 'data: {"choices":[{"delta":{"content":"\\"usage\\" é"}}],"usage":null}\n\n';
  const usage = (count: string) =>
    `data: {"id":1.0,"choices":[ ],"usage":{"prompt_tokens":99,"prompt_tokens_details":{"cached_tokens":${count}}}}\n\n`;
  const done = 'data: [DONE]\n\n';

  it('has them in the event with the usage; whole lines go on at once', () => {
    assert.deepEqual(passed([token, token, usage('98'), done], events), [token, token, usage('7'), done, '']);
    assert.equal(whole(`${token}${usage('98')}${done}`, events), `${token}${usage('7')}${done}`);
  });

  it('has them wherever it is cut into pieces, whatever ends its lines', () => {
    const line = fc.constantFrom('\n', '\r', '\r\n');
    fc.assert(
      fc.property(line, fc.array(fc.nat(400), { maxLength: 12 }), (end, cuts) => {
        const text = (count: string) => `${token}: ping\n\n${usage(count)}${done}`.replaceAll('\n', end);
        const bytes = Buffer.from(text('98'));
        const places = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
        const pieces = places.slice(1).map((place, at) => bytes.subarray(places[at], place));
        // Pieces may end within a character.
        const budget = new BodyBudget(1e9);
        const change = new CachedTokens('7', new Holding(budget));
        change.begin({ status: 200, headers: HeaderLines.of(events) });
        const out = [...pieces.map((piece) => change.take(Buffer.from(piece))), change.rest()];
        assert.equal(Buffer.concat(out.filter((piece) => piece !== null)).toString(), text('7'));
      }),
    );
  });

  it('goes on as it is when an event has a choice, a line is too long, or a length was promised', () => {
    const others = [usage('98').replace('[ ]', '[{}]'), `: ${usage('98')}`, 'event: "usage"\n\n', 'data: "usage"'];
    for (const text of others) assert.equal(whole(text, events), text);
    assert.equal(whole(usage('98'), [...events, 'content-length', '9']), usage('98'));
    const long = `data: "${'x'.repeat(70_000)}`;
    assert.deepEqual(passed([long, '"\n\n', usage('98')], events), [long, '"\n\n', usage('98'), '']);
  });
});
