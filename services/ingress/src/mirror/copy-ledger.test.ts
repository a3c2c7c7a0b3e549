import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CopyLedger, type CopyOrigin } from './copy-ledger.ts';

describe('the copy ledger', () => {
  const limits = { maxOpen: 3, lostAfterMs: 100 };
  const origin: CopyOrigin = { requestId: 'r', log: true };

  it('closes a copy once, and tells of which request it was made', () => {
    const ledger = new CopyLedger(limits);
    ledger.open(1, origin, 0);
    assert.equal(ledger.close(1), origin);
    assert.equal(ledger.close(1), undefined);
    assert.equal(ledger.close(2), undefined);
  });

  it('gives up copies that nobody names for too long, and only those', () => {
    const ledger = new CopyLedger(limits);
    for (const copy of [1, 2]) ledger.open(copy, origin, 0);
    ledger.heard([2, 7], 60);
    assert.deepEqual(ledger.lost(99), []);
    assert.deepEqual(ledger.lost(100), [1]);
    assert.equal(ledger.close(1), origin);
    assert.deepEqual(ledger.lost(160), [2]);
  });

  it('does not hold a silence against copies that could not be heard of', () => {
    const ledger = new CopyLedger(limits);
    ledger.open(1, origin, 0);
    ledger.forgiveSilence(500);
    assert.deepEqual(ledger.lost(500), []);
    assert.deepEqual(ledger.lost(600), [1]);
  });

  it('is bounded', () => {
    const ledger = new CopyLedger(limits);
    assert.deepEqual(
      [1, 2, 3, 4].map((copy) => ledger.open(copy, origin, 0)),
      [true, true, true, false],
    );
    ledger.close(2);
    assert.equal(ledger.open(5, origin, 0), true);
  });
});
