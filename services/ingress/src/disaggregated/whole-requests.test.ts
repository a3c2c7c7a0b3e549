import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { readObject } from '../body/member-changes.ts';
import { reasonForWhole } from './whole-requests.ts';

function reason(text: string) {
  const object = readObject(Buffer.from(text));
  assert.ok(object, text);
  return reasonForWhole(object);
}

describe('a request is not split', () => {
  it('when it has several prompts, however they are written', () => {
    for (const prompt of [
      '["a","b"]',
      '[ "a" ,\n"b" ]',
      '[[1,2],[3]]',
      '[ [ ] , []]',
      '["\\"]","b"]',
      '["\\\\","b"]',
    ]) {
      assert.equal(reason(`{"prompt":${prompt}}`), 'prompts', prompt);
      assert.equal(reason(`{"prompt_embeds":${prompt}}`), 'prompts', prompt);
    }
  });

  it('when several answers are wanted, or the best of several', () => {
    for (const value of ['2', '"2"', '2.0', '1e1']) {
      assert.equal(reason(`{"n":${value}}`), 'n', value);
      assert.equal(reason(`{"n":1,"best_of":${value}}`), 'best_of', value);
    }
    assert.equal(reason('{"n":1,"\\u006e":3}'), 'n');
  });

  it('when it asks for beam search', () => {
    for (const value of ['true', '1', '"true"', '"Yes"']) {
      assert.equal(reason(`{"use_beam_search":${value}}`), 'beam_search', value);
    }
  });
});

describe('a request is split', () => {
  it('when one answer to one prompt is wanted', () => {
    const bodies = [
      '{}',
      '{"prompt":"a, [\\"b\\",\\"c\\"]"}',
      '{"prompt":["a"]}',
      '{"prompt":["a, \\"b\\""]}',
      '{"prompt":[1,2,3]}',
      '{"prompt":[[1,2]]}',
      '{"prompt":[]}',
      '{"prompt":null}',
      '{"messages":[{"role":"user"},{"role":"user"}]}',
      '{"n":1,"best_of":1,"use_beam_search":false}',
      '{"n":null,"best_of":null,"use_beam_search":null}',
      '{"n":"x","use_beam_search":"false"}',
      '{"n":[2],"use_beam_search":{}}',
    ];
    for (const body of bodies) assert.equal(reason(body), null, body);
  });

  it('exactly when a parser finds less than two prompts', () => {
    const space = fc.constantFrom('', ' ', '\n\t');
    const prompts = fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.array(fc.nat())), { maxLength: 4 });
    fc.assert(
      fc.property(prompts, space, (list, blank) => {
        const text = `[${list.map((prompt) => `${blank}${JSON.stringify(prompt)}${blank}`).join(',')}]`;
        assert.equal(reason(`{"prompt":${text}}`), list.length > 1 ? 'prompts' : null);
      }),
    );
  });
});
