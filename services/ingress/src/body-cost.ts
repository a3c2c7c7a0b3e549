/**
 * What finding and changing the fields of a body of 200 KB costs, as a share of parsing and writing
 * it. `npm --workspace services/ingress run cost` prints the shares, and exits with 1 when one is
 * over its limit.
 */

import { scanMembers } from './body/json-members.ts';
import { changeMembers, type JsonObject } from './body/member-changes.ts';
import { readContent } from './body/request-content.ts';
import { prefillForm } from './disaggregated/prefill-form.ts';

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

const prose = { prompt: `${sentence.repeat(10)}\n\n"${sentence}"\n\n`.repeat(228) };
const tokens = { prompt: Array.from({ length: 34_000 }, (_, at) => 10_000 + at) };
const quotes = { prompt: dialogue.repeat(2100) };
const message = { role: 'user', content: dialogue.repeat(10) };
const messages = { messages: Array.from({ length: 200 }, () => message) };

function findAndChange(bytes: Buffer): void {
  const members = scanMembers(bytes);
  if (!members) throw new Error('the body has no members');
  changed({ bytes, members });
}

/** Changing alone: the fields of a body this large are known before there is a decision. */
function changeOf(bytes: Buffer): () => void {
  const { members } = readContent(bytes);
  if (!members) throw new Error('the body has no members');
  return () => changed({ bytes, members });
}

const finding = (bytes: Buffer) => () => findAndChange(bytes);
const cases: readonly (readonly [string, object, (bytes: Buffer) => () => void, number])[] = [
  ['finding and changing, the prompt is prose', prose, finding, 1 / 3],
  ['finding and changing, the prompt is tokens', tokens, finding, 1 / 3],
  ['finding and changing, full of quotes', quotes, finding, 1 / 2],
  ['finding and changing, many messages', messages, finding, 1 / 2],
  ['changing alone, full of quotes', quotes, changeOf, 1 / 3],
];
for (const [what, fields, work, limit] of cases) {
  const bytes = encoded(fields);
  const share = shareOf(() => rewritten(bytes), work(bytes), limit);
  process.stdout.write(`${what}: ${share.toFixed(3)} of parsing and writing, limit ${limit.toFixed(3)}\n`);
  if (share >= limit) process.exitCode = 1;
}
