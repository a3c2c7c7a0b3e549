import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CopyQueue, type QueueLimits } from './copy-queue.ts';

interface Item {
  readonly name: string;
  readonly bytes: number;
}

/** A queue whose work ends when it is told to. */
function queueOf(limits: Partial<QueueLimits> = {}) {
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const queue = new CopyQueue<Item>({ maxConcurrency: 2, maxWaiting: 2, maxHeldBytes: 100, ...limits }, ({ name }) => {
    begun.push(name);
    return new Promise((resolve) => ends.set(name, resolve));
  });
  const end = async (name: string) => {
    ends.get(name)?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { queue, begun, end };
}

describe('the copy queue', () => {
  it('works on as many at once as it may, the others in the order they came', async () => {
    const { queue, begun, end } = queueOf();
    for (const name of 'abcd') assert.equal(queue.offer({ name, bytes: 1 }), true);
    assert.deepEqual(begun, ['a', 'b']);
    await end('b');
    await end('a');
    assert.deepEqual(begun, ['a', 'b', 'c', 'd']);
    assert.equal(queue.idle, false);
    await end('c');
    await end('d');
    assert.equal(queue.idle, true);
    assert.equal(queue.heldBytes, 0);
  });

  it('refuses more than may wait', async () => {
    const { queue, begun, end } = queueOf();
    const taken = [...'abcde'].map((name) => queue.offer({ name, bytes: 1 }));
    assert.deepEqual(taken, [true, true, true, true, false]);
    await end('a');
    assert.equal(queue.offer({ name: 'f', bytes: 1 }), true);
    assert.deepEqual(begun, ['a', 'b', 'c']);
  });

  it('refuses more bytes than may be held, waiting and worked on together', async () => {
    const { queue, end } = queueOf({ maxHeldBytes: 10 });
    assert.equal(queue.offer({ name: 'a', bytes: 6 }), true);
    assert.equal(queue.offer({ name: 'b', bytes: 5 }), false);
    assert.equal(queue.offer({ name: 'c', bytes: 4 }), true);
    assert.equal(queue.heldBytes, 10);
    await end('a');
    assert.equal(queue.offer({ name: 'd', bytes: 6 }), true);
  });

  it('needs no room to wait for what can begin at once', () => {
    const { queue } = queueOf({ maxWaiting: 0 });
    assert.deepEqual(
      [...'abc'].map((name) => queue.offer({ name, bytes: 0 })),
      [true, true, false],
    );
  });
});
