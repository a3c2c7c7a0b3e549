import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isResponseId, ResponseIdSearch } from './response-id.ts';

function search(pieces: readonly string[]): string | null | undefined {
  const looking = new ResponseIdSearch();
  let found: string | null | undefined = null;
  for (const piece of pieces) {
    found = looking.take(Buffer.from(piece));
    if (found !== null) break;
  }
  return found;
}

describe('the id of a response', () => {
  it('is found in its answer, whole or streamed, however it is cut', () => {
    const body = '{"id": "resp_1a-2_b","previous_response_id":"resp_0","output":[]}';
    assert.equal(search([body]), 'resp_1a-2_b');
    assert.equal(search([...body]), 'resp_1a-2_b');
    assert.equal(
      search([`event: response.created\ndata: {"type":"response.created","response":${body}}\n\n`]),
      'resp_1a-2_b',
    );
  });

  it('is not taken from a text, nor from another field', () => {
    assert.equal(search(['{"previous_response_id":"resp_0","instructions":"\\"id\\":\\"resp_9\\""}']), null);
    assert.equal(search(['{"id":"msg_1"}']), null);
  });

  it('is given up when it does not come soon', () => {
    assert.equal(search(['x'.repeat(70_000)]), undefined);
  });

  it('has a form', () => {
    for (const id of ['resp_1', `resp_${'a'.repeat(123)}`]) assert.ok(isResponseId(id));
    for (const id of ['', 'resp_', 'resp_a/b', 'msg_1', `resp_${'a'.repeat(124)}`, 7, null])
      assert.ok(!isResponseId(id));
  });
});
