import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KeptAnswer } from './kept-answer.ts';

const head = {
  status: 429,
  headers: ['Content-Type', 'text/plain', 'Content-Length', '6', 'Content-Encoding', 'gzip', 'Retry-After', '3'],
};

describe('an answer that is kept', () => {
  it('is given whole, without the length it came with', () => {
    const kept = new KeptAnswer(head);
    kept.take(Buffer.from('abc'));
    kept.take(Buffer.from('def'));
    assert.deepEqual(kept.whole(), {
      status: 429,
      headers: ['Content-Type', 'text/plain', 'Content-Encoding', 'gzip', 'Retry-After', '3'],
      body: Buffer.from('abcdef'),
    });
  });

  it('loses its body and what described it when it was cut or is too large', () => {
    const bare = { status: 429, headers: ['Retry-After', '3'], body: Buffer.alloc(0) };
    const cut = new KeptAnswer(head);
    cut.take(Buffer.from('abc'));
    assert.deepEqual(cut.cut(), bare);
    const large = new KeptAnswer(head);
    for (let n = 0; n < 16; n++) assert.ok(large.take(Buffer.alloc(65_536)));
    assert.equal(large.take(Buffer.alloc(1)), false, 'more than 1 MiB');
    assert.deepEqual(large.whole(), bare);
  });
});
