import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chunkOf, lastChunk } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { BodyBudget, Holding } from '../body/body-budget.ts';
import { BodyReader } from './body-reader.ts';

const isCode = (code: string) => (error: unknown) => error instanceof GatewayError && error.code === code;

function readerOf(
  framing: { contentLength?: number; chunked?: boolean },
  limits: { max?: number; budget?: number } = {},
) {
  const budget = new BodyBudget(limits.budget ?? 1e9);
  const holding = new Holding(budget);
  const { contentLength = -1, chunked = false } = framing;
  const reader = new BodyReader({ contentLength, chunked }, { maxBytes: limits.max ?? 1e9, holding });
  return { reader, budget, holding };
}

/** Gives `octets` to the reader in pieces of at most `size`. Returns what was not taken. */
function feed(reader: BodyReader, octets: Buffer, size: number): number {
  for (let at = 0; at < octets.length; at += size) {
    const piece = octets.subarray(at, at + size);
    const end = reader.take(piece, 0);
    if (reader.done) return octets.length - at - end;
  }
  return 0;
}

describe('the reader of a body', () => {
  it('has the body however it is framed and cut, and nothing of what follows', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 3000 }),
        fc.boolean(),
        fc.integer({ min: 1, max: 4000 }),
        fc.integer({ min: 1, max: 500 }),
        (bytes, chunked, size, chunkSize) => {
          const body = Buffer.from(bytes);
          let framed = body;
          if (chunked) {
            const chunks: string[] = [];
            for (let at = 0; at < body.length; at += chunkSize) {
              chunks.push(chunkOf(body.toString('latin1', at, at + chunkSize)));
            }
            framed = Buffer.from(chunks.join('') + lastChunk, 'latin1');
          }
          const { reader } = readerOf(chunked ? { chunked } : { contentLength: body.length });
          assert.equal(feed(reader, Buffer.concat([framed, Buffer.from('next')]), size) > 0, true);
          assert.ok(reader.done);
          assert.deepEqual(Buffer.from(reader.body), body);
        },
      ),
    );
  });

  it('takes out of the budget what it holds, once', () => {
    for (const [framing, octets] of [
      [{ contentLength: 3_000_000 }, Buffer.alloc(3_000_000)],
      [{ chunked: true }, Buffer.from(chunkOf('x'.repeat(3_000_000)) + lastChunk, 'latin1')],
    ] as const) {
      const { reader, budget, holding } = readerOf(framing);
      feed(reader, octets, 65_536);
      assert.ok(budget.heldBytes >= 3_000_000 && budget.heldBytes < 3_300_000, `${budget.heldBytes}`);
      assert.equal(reader.body.buffer.byteLength, budget.heldBytes, 'what is accounted for is what is allocated');
      holding.freeAll();
      assert.equal(budget.heldBytes, 0);
    }
  });

  it('holds what came, not what was announced', () => {
    const { reader, budget } = readerOf({ contentLength: 60_000_000 });
    reader.take(Buffer.alloc(1000), 0);
    assert.ok(budget.heldBytes <= 65_536);
  });

  it('refuses a body that is too large, before it is read when its length says so', () => {
    assert.throws(() => readerOf({ contentLength: 11 }, { max: 10 }), isCode('body_too_large'));
    const { reader } = readerOf({ chunked: true }, { max: 10 });
    assert.throws(() => reader.take(Buffer.from(chunkOf('x'.repeat(11))), 0), isCode('body_too_large'));
  });

  it('refuses a body for which there is no room', () => {
    const { reader, budget } = readerOf({ contentLength: 200_000 }, { budget: 100_000 });
    reader.take(Buffer.alloc(10), 0);
    assert.throws(() => feed(reader, Buffer.alloc(190_000), 65_536), isCode('overloaded'));
    assert.ok(budget.heldBytes <= 100_000);
  });

  it('refuses broken chunks', () => {
    const { reader } = readerOf({ chunked: true });
    assert.throws(() => reader.take(Buffer.from('nope\r\n'), 0), isCode('invalid_request'));
  });
});
