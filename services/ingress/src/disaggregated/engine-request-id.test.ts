import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { engineRequestId } from './engine-request-id.ts';

describe('engineRequestId', () => {
  it("is the client's own for the first attempt and holds it in every other", () => {
    assert.equal(engineRequestId('abc', 1), 'abc');
    assert.equal(engineRequestId('abc', 2), 'r2-abc');
    assert.equal(engineRequestId('r2-abc', 2), 'R2-r2-abc');
  });

  it('never begins with the id of another attempt of the same request', () => {
    const id = fc.stringMatching(/^[rR0-9-]{1,4}[\x21-\x7e]{0,6}$/);
    const attempt = fc.integer({ min: 1, max: 200 });
    fc.assert(
      fc.property(id, attempt, attempt, (client, one, other) => {
        fc.pre(one !== other);
        assert.ok(!engineRequestId(client, one).startsWith(engineRequestId(client, other)));
      }),
    );
  });
});
