import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { EngineIds, engineRequestId } from './engine-request-id.ts';

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

describe('EngineIds', () => {
  /** A request, and what ends it. */
  const request = (id: string, givenId = true) => {
    const over: (() => void)[] = [];
    const client = { whenOver: (callback: () => void) => void over.push(callback) };
    const end = () => {
      for (const callback of over) callback();
    };
    return { id, givenId, client, end };
  };

  it('gives requests that have one id at the same time different ones', () => {
    const ids = new EngineIds();
    const [one, two] = [request('a'), request('a')];
    assert.deepEqual([ids.own(one), ids.own(two), ids.own(one)], ['a', 'r2-a', 'a']);
    one.end();
    assert.equal(ids.own(request('a')), 'r3-a');
  });

  it('gives each attempt of a split request another one', () => {
    const ids = new EngineIds();
    const [one, two] = [request('a'), request('a')];
    assert.deepEqual([ids.next(one), ids.next(two), ids.next(one)], ['a', 'r2-a', 'r3-a']);
  });

  it('holds nothing when its requests are over, and nothing for an id that the gateway made', () => {
    const ids = new EngineIds();
    const [one, two] = [request('a'), request('a')];
    for (const each of [one, two, one]) ids.next(each);
    one.end();
    const third = request('a');
    assert.equal(ids.own(third), 'r4-a');
    for (const each of [two, third]) each.end();
    assert.equal(ids.own(request('a')), 'a');
    for (let times = 0; times < 2; times++) assert.equal(ids.own(request('made', false)), 'made');
    assert.equal(ids.own(request('made')), 'made');
  });
});
