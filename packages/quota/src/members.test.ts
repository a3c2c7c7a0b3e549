import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Members } from './members.ts';

const things = Array.from({ length: 300 }, (_, n) => `client-${n}`);

function membersOf(...names: readonly string[]): Members {
  const members = new Members();
  for (const name of names) members.hear(name, 0);
  return members;
}

describe('members', () => {
  it('own about as many things each, the same for all who hear them in whatever order', () => {
    const owners = things.map((thing) => membersOf('a', 'b', 'c').ownerOf(thing, 1));
    assert.deepEqual(
      things.map((thing) => membersOf('c', 'a', 'b').ownerOf(thing, 1)),
      owners,
    );
    for (const name of ['a', 'b', 'c']) assert.ok(owners.filter((owner) => owner === name).length > 60);
  });

  it('leave what they own to the others when they go, and nothing else moves', () => {
    const members = membersOf('a', 'b', 'c');
    const before = things.map((thing) => members.ownerOf(thing, 1));
    members.drop('b');
    for (const [at, thing] of things.entries()) {
      const owner = members.ownerOf(thing, 1);
      if (before[at] === 'b') assert.notEqual(owner, 'b');
      else assert.equal(owner, before[at]);
    }
  });

  it('are gone after three and a half silent seconds, unless nobody can be heard', () => {
    const members = membersOf('a');
    assert.ok(members.has('a', 3499));
    members.excuse(3000);
    assert.ok(members.has('a', 6499));
    assert.ok(!members.has('a', 6500));
    assert.equal(members.ownerOf('x', 6500), undefined);
  });

  it('all stay after a pause of this process, which heard nobody meanwhile', () => {
    const members = membersOf('a', 'b');
    for (let now = 0; now <= 3000; now += 1000) {
      members.hear('b', now);
      members.tick(now);
    }
    assert.deepEqual(members.names(3600), ['b'], 'it was there, and did not hear the other');
    assert.ok(!members.wasAway(4999));
    assert.ok(members.wasAway(9000));
    assert.ok(!members.wasAway(9001), 'once for each pause');
    assert.deepEqual(members.names(12_499), ['b']);
  });
});
