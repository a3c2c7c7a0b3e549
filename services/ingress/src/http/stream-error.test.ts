import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventOfAnswer } from './stream-error.ts';
import type { ErrorShape } from './surface.ts';

/** The name and the data of the event that tells an answer. */
function told(status: number, body: unknown, shape: ErrorShape) {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  const event = eventOfAnswer(status, bytes, shape);
  const [, name = '', data = ''] = /^(?:event: (.*)\n)?data: (.*)\n\n$/.exec(event) ?? [];
  return { name, data: JSON.parse(data) };
}

const tooLong = 'the context length is 4096 tokens';
const bodies: Readonly<Record<string, unknown>> = {
  nested: { error: { message: tooLong, type: 'BadRequestError', param: null, code: 400 } },
  flat: { object: 'error', message: tooLong, type: 'BadRequestError', code: 400 },
  bare: { message: tooLong },
  'in words': { error: tooLong },
  'in a list': [{ error: { code: 400, message: tooLong, status: 'INVALID_ARGUMENT' } }],
  detail: { detail: tooLong },
  'detail in an object': { detail: { message: tooLong } },
  'detail in a list': { detail: [{ loc: [], msg: tooLong }, 'other'] },
  plain: `${tooLong}\n`,
};

describe('the event of an answer that was no stream', () => {
  it("is Anthropic's on its API, whatever shape the answer has", () => {
    for (const [what, body] of Object.entries(bodies)) {
      const { name, data } = told(400, body, 'anthropic');
      assert.equal(name, 'error', what);
      assert.deepEqual(data, { type: 'error', error: { type: 'invalid_request_error', message: tooLong } }, what);
    }
    const types = [401, 404, 422, 429, 500, 503, 529].map((status) => told(status, 'no', 'anthropic').data.error.type);
    assert.deepEqual(types, [
      'authentication_error',
      'not_found_error',
      'invalid_request_error',
      'rate_limit_error',
      'api_error',
      'overloaded_error',
      'overloaded_error',
    ]);
    const own = { type: 'error', error: { type: 'overloaded_error', message: 'busy' } };
    assert.deepEqual(told(500, own, 'anthropic').data, own);
  });

  it("is OpenAI's on its APIs, with the message and the type of the status", () => {
    for (const [what, body] of Object.entries(bodies)) {
      const { name, data } = told(422, body, 'openai');
      assert.equal(name, '', what);
      assert.equal(data.error.message, tooLong, what);
      const type = what === 'nested' ? 'BadRequestError' : 'invalid_request_error';
      assert.equal(data.error.type, type, what);
    }
    assert.deepEqual(told(429, 'slow down', 'openai').data, {
      error: { type: 'rate_limit_error', param: null, code: null, message: 'slow down' },
    });
    assert.deepEqual(told(400, bodies.nested, 'openai').data, bodies.nested);
    const { name, data } = told(400, bodies.flat, 'responses');
    assert.deepEqual([name, data.type, data.message], ['error', 'error', tooLong]);
  });

  it('names the places of mistakes in a list, at most 16', () => {
    const detail = [{ type: 'missing', loc: ['body', 'messages', 0], msg: 'Field required' }];
    assert.equal(told(422, { detail }, 'openai').data.error.message, 'body.messages.0: Field required');
    const many = new Array(1000).fill({ msg: 'wrong' });
    assert.equal(told(422, { detail: many }, 'openai').data.error.message.split('; ').length, 16);
  });

  it('has the status alone when the answer tells nothing for people', () => {
    const page = '<html>Bad gateway</html>';
    const zipped = Buffer.from([0x1f, 0x8b, 8, 0]);
    for (const body of ['', '{}', 'null', '[]', '{"error":', page, zipped, 'a\0b', 'x'.repeat(2000), { message: 7 }]) {
      assert.equal(told(500, body, 'openai').data.error.message, 'the upstream answered 500');
      assert.equal(told(500, body, 'openai').data.error.code, 'upstream_failed');
    }
  });

  it('tells of an answer that is no error only what that calls one', () => {
    for (const body of [{ message: 'hello' }, { detail: 'hello' }, 'hello', { id: 'x' }])
      assert.deepEqual(told(200, body, 'openai').data, {
        error: {
          type: 'server_error',
          param: null,
          code: 'upstream_failed',
          message: 'the upstream did not answer with a stream',
        },
      });
    assert.equal(told(200, bodies.nested, 'openai').data.error.message, tooLong);
    assert.equal(told(200, {}, 'anthropic').data.error.type, 'api_error');
  });

  it('leaves out what is deep', () => {
    const deep = `{"error":{"message":"m","type":"t","deep":${'['.repeat(30_000)}${']'.repeat(30_000)}}}`;
    assert.deepEqual(told(400, deep, 'openai').data, { error: { type: 't', param: null, code: null, message: 'm' } });
  });
});
