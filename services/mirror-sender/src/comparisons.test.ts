import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { MirrorPrimary } from '@llm-gateway/protocol';
import { Comparisons } from './comparisons.ts';
import { type CopyResult, unsent } from './copy-call.ts';
import type { CopyName } from './copy-name.ts';

function nameOf(copy: number): CopyName {
  return { ingress: 'i', copy };
}

function primaryOf(copy: number): MirrorPrimary {
  const answer = { status: 200, timeToFirstByteMs: 1, durationMs: 2, bytes: 3, finishReason: 'stop' };
  return { ...nameOf(copy), requestId: `r${copy}`, ...answer };
}

const shadow: CopyResult = { ...unsent(''), kind: 'sent', status: 200 };

function scene({ maxWaiting = 10, waitMs = 100 } = {}) {
  const heard: string[] = [];
  const comparisons = new Comparisons({
    maxWaiting,
    waitMs,
    onPair: ({ copy }) => heard.push(`pair ${copy}`),
    onUnpaired: (reason) => heard.push(reason),
  });
  return { heard, comparisons };
}

describe('a comparison', () => {
  it('is made when both have ended, whichever was first', () => {
    const { heard, comparisons } = scene();
    for (const copy of [1, 2]) comparisons.begin(nameOf(copy));
    comparisons.primaryEnded(primaryOf(1));
    assert.deepEqual(heard, []);
    comparisons.copyEnded(nameOf(1), shadow, 0);
    comparisons.copyEnded(nameOf(2), shadow, 0);
    comparisons.primaryEnded(primaryOf(2));
    assert.deepEqual(heard, ['pair 1', 'pair 2']);
    assert.equal(comparisons.waiting, 0);
  });

  it('is made once', () => {
    const { heard, comparisons } = scene();
    comparisons.begin(nameOf(1));
    comparisons.copyEnded(nameOf(1), shadow, 0);
    for (let i = 0; i < 2; i++) comparisons.primaryEnded(primaryOf(1));
    comparisons.copyEnded(nameOf(1), shadow, 0);
    assert.deepEqual(heard, ['pair 1']);
  });

  it("is not made of another sender's primary, and keeps nothing of it", () => {
    const { heard, comparisons } = scene();
    comparisons.primaryEnded(primaryOf(1));
    comparisons.begin(nameOf(1));
    comparisons.copyEnded(nameOf(1), shadow, 0);
    assert.deepEqual(heard, []);
    assert.equal(comparisons.waiting, 1);
  });

  it('is not made of a copy that was dropped', () => {
    const { heard, comparisons } = scene();
    comparisons.begin(nameOf(1));
    comparisons.copyEnded(nameOf(1), unsent('queue_full'), 0);
    comparisons.primaryEnded(primaryOf(1));
    assert.deepEqual(heard, []);
    assert.equal(comparisons.waiting, 0);
  });

  it('is given up when the primary does not end in time', () => {
    const { heard, comparisons } = scene({ waitMs: 100 });
    for (const copy of [1, 2]) {
      comparisons.begin(nameOf(copy));
      comparisons.copyEnded(nameOf(copy), shadow, copy * 50);
    }
    comparisons.expire(149);
    assert.deepEqual(heard, []);
    comparisons.expire(150);
    assert.deepEqual(heard, ['expired']);
    comparisons.primaryEnded(primaryOf(2));
    assert.deepEqual(heard, ['expired', 'pair 2']);
  });

  it('is given up when the sender has to go', () => {
    const { heard, comparisons } = scene();
    for (const copy of [1, 2]) comparisons.begin(nameOf(copy));
    comparisons.copyEnded(nameOf(1), shadow, 0);
    comparisons.giveUp();
    assert.deepEqual(heard, ['shutdown'], 'a copy that is under way does not wait for its primary yet');
    assert.equal(comparisons.waiting, 0);
  });

  it('waits for as many as it may; the oldest gives way', () => {
    const { heard, comparisons } = scene({ maxWaiting: 2 });
    for (const copy of [1, 2, 3]) {
      comparisons.begin(nameOf(copy));
      comparisons.copyEnded(nameOf(copy), shadow, 0);
    }
    assert.deepEqual(heard, ['too_many']);
    for (const copy of [1, 2, 3]) comparisons.primaryEnded(primaryOf(copy));
    assert.deepEqual(heard, ['too_many', 'pair 2', 'pair 3']);
  });
});
