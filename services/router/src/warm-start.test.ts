import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { Caches } from '@llm-gateway/fleet';
import { Fingerprints, type PrefixPage, type PrefixQuery, prefixList } from '@llm-gateway/protocol';
import { takeOverCaches } from './warm-start.ts';

const instances = ['a', 'b', 'c'];

function emptyCaches(): Caches {
  const caches = new Caches({ capacityBytes: 1e12 });
  for (const instance of instances) caches.add(instance);
  return caches;
}

/** Knows so many beginnings of prompts of each instance. */
function peerWith(each: number): Caches {
  const caches = emptyCaches();
  const prints = new Fingerprints();
  for (const instance of instances) {
    for (let at = 1; at <= each; at++) {
      prints.count = 0;
      prints.add(1, at, 4096);
      caches.placed(instance, prints.write(), 0);
    }
  }
  return caches;
}

/** What a starting router knows after it asked whoever answers pages like this. */
async function takenOver(answer: (query: PrefixQuery, asked: number) => Omit<PrefixPage, 'router'>): Promise<number> {
  await using bus = inProcessBus();
  let asked = 0;
  for (const owner of [undefined, 'peer']) {
    bus.respond(prefixList, (query) => ({ router: 'peer', ...answer(query, asked++) }), { owner });
  }
  const caches = emptyCaches();
  await takeOverCaches(bus, caches, new AbortController().signal);
  return caches.entries;
}

test('a router that starts takes over all that another one knows, page by page', async () => {
  const peer = peerWith(9000);
  let pages = 0;
  const entries = await takenOver((query) => {
    pages++;
    return peer.page(query);
  });
  assert.deepEqual([entries, pages], [27_000, 3]);
});

test('a router that starts keeps what it has when the other one dies on the way, and begins with nothing alone', async () => {
  const peer = peerWith(9000);
  const entries = await takenOver((query, asked) => {
    if (asked > 0) throw new Error('dead');
    return peer.page(query);
  });
  assert.equal(entries, 10_000);
  await using bus = inProcessBus();
  const caches = emptyCaches();
  await takeOverCaches(bus, caches, new AbortController().signal);
  assert.equal(caches.entries, 0);
});

test('a router that starts is not held up by pages without an end, and takes nothing of instances that it does not know', async () => {
  let pages = 0;
  const entries = await takenOver(() => {
    pages++;
    return { shelves: [{ instance: 'nobody', entries: 'A'.repeat(900) }], next: { instance: 'a', entries: 0 } };
  });
  assert.equal(entries, 0);
  assert.ok(pages <= 200, `${pages}`);
});
