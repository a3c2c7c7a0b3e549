import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type WorkLimits, WorkQueue, type WorkSlot } from './work-queue.ts';

const long = 1_000_000;

/** A queue whose work ends when it is told to. */
function queueOf(limits: Partial<WorkLimits> = {}) {
  const begun: string[] = [];
  const slots = new Map<string, WorkSlot>();
  const queue = new WorkQueue({ maxWorking: 2, maxWaiting: 2, maxHeldBytes: 100, ...limits });
  const offer = (name: string, bytes = 1): boolean => {
    const slot = queue.take(bytes);
    if (slot === null) return false;
    slots.set(name, slot);
    slot.onTurn(() => begun.push(name));
    return true;
  };
  return { queue, begun, offer, end: (name: string) => slots.get(name)?.release() };
}

describe('a queue of work', () => {
  it('does as many at once as it may, the others in the order they came', () => {
    const { queue, begun, offer, end } = queueOf();
    for (const name of 'abcd') assert.equal(offer(name), true);
    assert.deepEqual(begun, ['a', 'b']);
    assert.deepEqual([queue.working, queue.waiting], [2, 2]);
    end('b');
    end('a');
    end('a');
    assert.deepEqual(begun, ['a', 'b', 'c', 'd']);
    assert.equal(queue.idle, false);
    end('c');
    end('d');
    assert.deepEqual([queue.idle, queue.working, queue.heldBytes], [true, 0, 0]);
  });

  it('takes on no more than may wait', () => {
    const { begun, offer, end } = queueOf();
    assert.deepEqual(
      [...'abcde'].map((name) => offer(name)),
      [true, true, true, true, false],
    );
    end('a');
    assert.equal(offer('f'), true);
    assert.deepEqual(begun, ['a', 'b', 'c']);
  });

  it('takes on no more bytes than may be held, waiting and being done together', () => {
    const { queue, offer, end } = queueOf({ maxHeldBytes: 10 });
    assert.equal(offer('a', 6), true);
    assert.equal(offer('b', 5), false);
    assert.equal(offer('c', 4), true);
    assert.equal(queue.heldBytes, 10);
    end('a');
    assert.equal(offer('d', 6), true);
  });

  it('needs no room to wait for what can begin at once', () => {
    const { offer } = queueOf({ maxWaiting: 0 });
    assert.deepEqual(
      [...'abc'].map((name) => offer(name, 0)),
      [true, true, false],
    );
  });

  it('has room for pieces that do not ask for their turn yet, and says when that changes', () => {
    let changes = 0;
    const queue = new WorkQueue({ maxWorking: 1, maxWaiting: 1, maxHeldBytes: 100 }, () => changes++);
    const [one, two] = [queue.take(1), queue.take(1)];
    assert.deepEqual([queue.room, queue.waiting, queue.working], [false, 2, 0]);
    assert.equal(queue.take(1), null);
    one?.release();
    two?.release();
    assert.deepEqual([queue.room, changes], [true, 4]);
  });

  it('gives the turn to who asked first and still waits, after a time limit or an abort not any more', async () => {
    const queue = new WorkQueue({ maxWorking: 1, maxWaiting: 3, maxHeldBytes: 100 });
    const [a, b, c, d] = Array.from({ length: 4 }, () => queue.take(1) as WorkSlot) as [
      WorkSlot,
      WorkSlot,
      WorkSlot,
      WorkSlot,
    ];
    const { signal } = new AbortController();
    assert.equal(await a.turn(long, signal), true);
    assert.equal(await b.turn(1, signal), false);
    const leaving = new AbortController();
    const refused = assert.rejects(c.turn(long, leaving.signal), /left/);
    leaving.abort(new Error('left'));
    await refused;
    await assert.rejects(c.turn(long, leaving.signal), /left/);
    const last = d.turn(long, signal);
    assert.deepEqual([queue.working, queue.waiting], [1, 3]);
    a.endTurn();
    a.endTurn();
    assert.equal(await last, true);
    assert.equal(queue.working, 1);
    d.release();
    assert.deepEqual([queue.working, queue.waiting], [0, 3]);
  });
});
