import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type RequestContent, readContent, readMediaContent } from './request-content.ts';

type Read = (body: Buffer, contentType?: string) => RequestContent;
/** With the code of what is no JSON object. */
const readers: [string, Read, string][] = [
  ['text', readContent, 'invalid_body'],
  ['audio and images', (body, contentType) => readMediaContent(body, contentType), 'model_not_found'],
];
const chat = Buffer.from('{"model":"m","stream":true}');

for (const [what, read, code] of readers) {
  describe(`the body of a request for ${what}`, () => {
    it('is a JSON object, whatever else than a form its content type says', () => {
      for (const type of [undefined, '', 'application/json; charset=utf-8', 'text/plain', 'audio/wav', 'x']) {
        const { model, stream } = read(chat, type);
        assert.deepEqual([model, stream], ['m', true], String(type));
      }
    });

    it('is refused when it is none', () => {
      const large = `{"model":"m","x":"${'x'.repeat(20_000)}"`;
      for (const body of ['{"model":', '[]', '"x"', '', ' ', 'null', '7', 'RIFF', `[${large}}]`, large]) {
        assert.throws(() => read(Buffer.from(body), 'application/json'), { code }, body);
      }
      for (const body of ['{"model":7}', '{"model":"m","stream":"yes"}']) {
        assert.throws(() => read(Buffer.from(body)), { code: 'invalid_body' }, body);
      }
    });

    it('is refused when its content type is that of another form', () => {
      for (const type of [
        'application/x-www-form-urlencoded',
        'Application/X-WWW-Form-Urlencoded; charset=utf-8',
        'multipart/mixed; boundary=b',
        'multipart/form-datax; boundary=b',
        'application/json, multipart/form-data; boundary=b',
      ]) {
        for (const body of [chat, Buffer.from('model=m')]) {
          assert.throws(() => read(body, type), { code: 'invalid_body', message: /content-type/ }, type);
        }
      }
    });
  });
}

describe('a model that is not named', () => {
  it('is none for text, and not found for audio and images', () => {
    const form = Buffer.from('--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--b--\r\n');
    const formType = 'multipart/form-data; boundary=b';
    for (const body of ['{}', '{"model":null}', '{"prompt":"x"}']) {
      assert.equal(readContent(Buffer.from(body)).model, null);
      assert.throws(() => readMediaContent(Buffer.from(body), undefined), { code: 'model_not_found' }, body);
    }
    assert.throws(() => readMediaContent(form, formType), { code: 'model_not_found' });
    assert.throws(() => readContent(form, formType), { code: 'invalid_body' });
  });
});

describe('the most tokens of an answer', () => {
  const limitOf = (fields: object, pad = '') =>
    readContent(Buffer.from(JSON.stringify({ prompt: pad, ...fields })), undefined, { readsLimit: true })
      .maxAnswerTokens;

  it('are read of small bodies and of large ones, where somebody asks', () => {
    for (const pad of ['', 'x'.repeat(20_000)]) {
      assert.equal(limitOf({ max_tokens: 7 }, pad), 7);
      assert.equal(limitOf({ max_tokens: 7, max_completion_tokens: 9 }, pad), 9);
      assert.equal(limitOf({ max_output_tokens: 0 }, pad), 0);
      for (const odd of [-1, 1.5, '7', null, [7], 1e300]) {
        assert.equal(limitOf({ max_tokens: odd }, pad), Number.POSITIVE_INFINITY, JSON.stringify(odd));
      }
    }
    assert.equal(readContent(Buffer.from('{"max_tokens":7}')).maxAnswerTokens, Number.POSITIVE_INFINITY);
  });
});

describe('what a body says', () => {
  it('is nothing of where things lie in it', () => {
    const body = { model: 'm', modelSpans: [{ start: 0, end: 5 }], members: [], maxAnswerTokens: 1 };
    const content = readContent(Buffer.from(JSON.stringify(body)), undefined, { readsLimit: true });
    assert.deepEqual(
      [content.model, content.modelSpans, content.members?.map(({ key }) => key), content.maxAnswerTokens],
      ['m', null, Object.keys(body), Number.POSITIVE_INFINITY],
    );
  });
});
