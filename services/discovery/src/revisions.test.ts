import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import { instancesChanged, instancesList } from '@llm-gateway/protocol';
import { Revisions } from './revisions.ts';

function instance(id: string, model = ''): Instance {
  return { id, roles: ['neutral'], host: '10.0.0.1', port: 1, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1, model };
}

function fleet(count: number): Instance[] {
  return Array.from({ length: count }, (_, at) => instance(`pod-${String(at).padStart(5, '0')}_dp0`));
}

test('a change is announced as the step from one revision to the next', () => {
  const revisions = new Revisions('r');
  const [first] = revisions.change([instance('a'), instance('b')], [], true);
  assert.deepEqual(first, {
    replica: 'r',
    revision: 1,
    previous: 0,
    storeUp: true,
    upserts: [instance('a'), instance('b')],
    removals: [],
  });
  const [second] = revisions.change([], ['a'], true);
  assert.deepEqual([second?.previous, second?.revision, second?.removals], [1, 2, ['a']]);
  assert.deepEqual(revisions.page(undefined, true).instances, [instance('b')]);
});

test('nothing to announce makes no revision', () => {
  const revisions = new Revisions('r');
  assert.deepEqual(revisions.change([], [], true), []);
  assert.deepEqual(revisions.change([], ['unknown'], true), []);
  assert.equal(revisions.heartbeat(true).revision, 0);
});

test('a heartbeat changes nothing and says whether the store is there', () => {
  const revisions = new Revisions('r');
  revisions.change([instance('a')], [], true);
  assert.deepEqual(revisions.heartbeat(false), {
    replica: 'r',
    revision: 1,
    previous: 1,
    storeUp: false,
    upserts: [],
    removals: [],
  });
});

test('a large change is announced in consecutive revisions, each of them small', () => {
  const revisions = new Revisions('r');
  const all = fleet(5000);
  const messages = revisions.change(all, [], true);
  assert.ok(messages.length > 1);
  assert.deepEqual(
    messages.map(({ previous, revision }) => [previous, revision]),
    messages.map((_, at) => [at, at + 1]),
  );
  for (const message of messages) assert.ok(instancesChanged.payload.encode(message).byteLength < 256 * 1024);
  assert.deepEqual(
    messages.flatMap((message) => message.upserts),
    all,
  );
  const removals = revisions.change(
    [],
    all.map((one) => one.id),
    true,
  );
  assert.equal(removals.flatMap((message) => message.removals).length, 5000);
  assert.equal(revisions.size, 0);
});

test('the pages of a large list are small, in order, and together the whole', () => {
  const revisions = new Revisions('r');
  const all = fleet(5000);
  revisions.change(all.toReversed(), [], true);
  const seen: Instance[] = [];
  let after: string | undefined;
  let pages = 0;
  for (;;) {
    const page = revisions.page(after, true);
    assert.ok(instancesList.reply.encode(page).byteLength < 256 * 1024);
    seen.push(...page.instances);
    pages++;
    if (!page.more) break;
    after = page.instances.at(-1)?.id;
  }
  assert.ok(pages > 1);
  assert.deepEqual(seen, all);
});

test('a page goes on after an id that has left meanwhile', () => {
  const revisions = new Revisions('r');
  revisions.change([instance('a'), instance('b'), instance('c')], [], true);
  revisions.change([], ['b'], true);
  assert.deepEqual(
    revisions.page('b', true).instances.map(({ id }) => id),
    ['c'],
  );
  assert.equal(revisions.page('c', true).more, false);
});

test('messages are as large as the bus takes at the moment', () => {
  let busMaxBytes = 16 * 1024;
  const revisions = new Revisions('r', { busMaxBytes: () => busMaxBytes });
  const all = fleet(500);
  for (const message of revisions.change(all, [], true)) {
    assert.ok(instancesChanged.payload.encode(message).byteLength <= busMaxBytes);
  }
  const first = revisions.page(undefined, true);
  assert.ok(first.more && instancesList.reply.encode(first).byteLength <= busMaxBytes);
  busMaxBytes = 1024 * 1024;
  assert.equal(revisions.page(first.instances.at(-1)?.id, true).more, false);
});

test('a long list of models is announced, and left out where messages are small', () => {
  let busMaxBytes = 1024 * 1024;
  const revisions = new Revisions('r', { busMaxBytes: () => busMaxBytes });
  const long = { ...instance('a'), models: Array.from({ length: 300 }, (_, at) => `${'m'.repeat(100)}-${at}`) };
  assert.deepEqual(revisions.change([long], [], true)[0]?.upserts, [long]);
  busMaxBytes = 16 * 1024;
  assert.deepEqual(revisions.page(undefined, true).instances, [instance('a')]);
  assert.deepEqual(revisions.change([{ ...long, port: 2 }], [], true)[0]?.upserts, [{ ...instance('a'), port: 2 }]);
});

test('an instance that would fill a message is not announced, and leaves when it was', () => {
  const tooLarge: string[] = [];
  const revisions = new Revisions('r', { onTooLarge: (id) => tooLarge.push(id) });
  const large = instance('b', 'm'.repeat(10_000));
  const messages = revisions.change([instance('a'), large, instance('c')], [], true);
  assert.deepEqual(
    messages.map(({ upserts }) => upserts.map(({ id }) => id)),
    [['a', 'c']],
  );
  revisions.change([instance('b')], [], true);
  assert.deepEqual(
    revisions.change([large], [], true).map(({ upserts, removals }) => ({ upserts, removals })),
    [{ upserts: [], removals: ['b'] }],
  );
  assert.deepEqual(tooLarge, ['b', 'b']);
  assert.equal(revisions.size, 2);
});
