import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import fc from 'fast-check';
import { BodyBudget, Holding } from '../body/body-budget.ts';
import { UsageEventFilter } from './usage-event-filter.ts';

const headOf = (type: string) => ({ status: 200, headers: HeaderLines.of(['content-type', type]) });
const said = { choices: [{ delta: { content: '"choices":[] "usage"' } }], usage: { completion_tokens: 1 } };
const event = (data: object, end = '\n\n') => `data: ${JSON.stringify(data)}${end}`;
const usage = { choices: [], usage: { prompt_tokens: 1, completion_tokens: 2 } };

function through(chunks: readonly string[], type = 'text/event-stream') {
  const budget = new BodyBudget(1e6);
  const filter = new UsageEventFilter(new Holding(budget));
  filter.begin(headOf(type));
  const passed = chunks.map((chunk) => filter.take(Buffer.from(chunk))?.toString() ?? '');
  const rest = filter.rest()?.toString() ?? '';
  assert.equal(budget.heldBytes, 0);
  return passed.join('') + rest;
}

describe('the event with the usage', () => {
  it('is left out and nothing else, wherever the stream is torn', () => {
    for (const end of ['\n\n', '\r\n\r\n']) {
      const before = event(said, end) + event({ choices: [{ delta: {} }] }, end);
      const after = `data: [DONE]${end}`;
      const text = before + event(usage, end) + after;
      fc.assert(
        fc.property(fc.array(fc.nat({ max: text.length }), { maxLength: 8 }), (cuts) => {
          const places = [0, ...cuts.toSorted((a, b) => a - b), text.length];
          const pieces = places.slice(1).map((to, at) => text.slice(places[at], to));
          assert.equal(through(pieces), before + after);
        }),
        { numRuns: 200 },
      );
    }
  });

  it('stays where the answer is no event stream, and a torn event stays at its end', () => {
    const text = event(usage);
    assert.equal(through([text], 'application/json'), text);
    assert.equal(through(['data: {"choices":[', ']']), 'data: {"choices":[]');
  });
});
