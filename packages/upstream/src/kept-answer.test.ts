import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import { KeptAnswer } from './kept-answer.ts';
import type { WholeResponse } from './whole.ts';

const head = {
  status: 429,
  headers: HeaderLines.of([
    'Content-Type',
    'text/plain',
    'Content-Length',
    '6',
    'Content-Encoding',
    'gzip',
    'Retry-After',
    '3',
  ]),
};

function listed({ status, headers, body }: WholeResponse): object {
  return { status, headers: headers.list, body };
}

describe('an answer that is kept', () => {
  it('is given whole, without the length it came with', () => {
    const kept = new KeptAnswer(head);
    kept.take(Buffer.from('abc'));
    kept.take(Buffer.from('def'));
    assert.deepEqual(listed(kept.whole()), {
      status: 429,
      headers: ['Content-Type', 'text/plain', 'Content-Encoding', 'gzip', 'Retry-After', '3'],
      body: Buffer.from('abcdef'),
    });
  });

  it('loses its body and what described it when it was cut or is too large', () => {
    const bare = { status: 429, headers: ['Retry-After', '3'], body: Buffer.alloc(0) };
    const cut = new KeptAnswer(head);
    cut.take(Buffer.from('abc'));
    assert.deepEqual(listed(cut.cut()), bare);
    const large = new KeptAnswer(head);
    for (let n = 0; n < 16; n++) assert.ok(large.take(Buffer.alloc(65_536)));
    assert.equal(large.take(Buffer.alloc(1)), false, 'more than 1 MiB');
    assert.deepEqual(listed(large.whole()), bare);
  });
});
