import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readContent } from '../body.ts';
import { prefillForm } from '../disaggregated/prefill-form.ts';
import { scanMembers } from '../json-members.ts';
import { changeMembers, type JsonObject } from './member-changes.ts';

const roundsPerBatch = 40;
const maxBatches = 25;

/**
 * How much of the time for `rewrite` the `change` takes. The two take turns, and of each the least
 * counts: what else runs on the machine only ever adds. More is measured until the limit holds, or
 * too often.
 */
function shareOf(rewrite: () => void, change: () => void, limit: number): number {
  let [rewriteMs, changeMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let batch = 0; batch < maxBatches; batch++) {
    for (let round = 0; round < roundsPerBatch; round++) {
      rewriteMs = Math.min(rewriteMs, timed(rewrite));
      changeMs = Math.min(changeMs, timed(change));
    }
    if (changeMs < rewriteMs * limit) break;
  }
  return changeMs / rewriteMs;
}

function timed(work: () => void): number {
  const startedAt = performance.now();
  work();
  return performance.now() - startedAt;
}

function changed(body: JsonObject): void {
  changeMembers(body, { ...prefillForm(body, 'openai'), kv_transfer_params: '{"do_remote_decode":true}' });
}

function rewritten(bytes: Buffer): void {
  const value = JSON.parse(bytes.toString()) as object;
  Buffer.from(JSON.stringify({ ...value, max_tokens: 1, n: 1, stream: false, stream_options: undefined }));
}

const encoded = (fields: object) =>
  Buffer.from(JSON.stringify({ model: 'm', ...fields, max_tokens: 100, stream: true, stream_options: {} }));

const sentence = 'It was the best of times, it was the worst of times, it was the age of wisdom. ';
/** A quotation or a line break every forty bytes. */
const dialogue = 'It was the best of times, it was the worst of times.\n"It was the age of wisdom," he wrote. ';

describe('of parsing and writing a body of 200 KB', () => {
  const prose = { prompt: `${sentence.repeat(10)}\n\n"${sentence}"\n\n`.repeat(228) };
  const tokens = { prompt: Array.from({ length: 34_000 }, (_, at) => 10_000 + at) };
  const message = { role: 'user', content: dialogue.repeat(10) };
  const wholes: [string, object, number][] = [
    ['a third when its prompt is prose', prose, 1 / 3],
    ['a third when its prompt is tokens', tokens, 1 / 3],
    ['half when it is full of quotes', { prompt: dialogue.repeat(2100) }, 1 / 2],
    ['half when it is many messages', { messages: Array.from({ length: 200 }, () => message) }, 1 / 2],
  ];
  for (const [what, fields, limit] of wholes) {
    it(`finding and changing its fields costs less than ${what}`, () => {
      const bytes = encoded(fields);
      const find = () => {
        const members = scanMembers(bytes);
        assert.ok(members);
        changed({ bytes, members });
      };
      const share = shareOf(() => rewritten(bytes), find, limit);
      assert.ok(share < limit, `${share}`);
    });
  }

  it('changing them costs less than a third once they are found', () => {
    const bytes = encoded({ prompt: dialogue.repeat(2100) });
    // Known before there is a decision: finding the model of a body this large takes reading its outline.
    const { members } = readContent(bytes);
    assert.ok(members);
    const share = shareOf(
      () => rewritten(bytes),
      () => changed({ bytes, members }),
      1 / 3,
    );
    assert.ok(share < 1 / 3, `${share}`);
  });
});
