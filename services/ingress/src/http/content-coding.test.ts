import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { FieldInterest, parseRequestHead } from '@llm-gateway/http1';
import { BodyBudget, Holding } from '../body/body-budget.ts';
import { type ContentCoding, contentCoding, decoded } from './content-coding.ts';
import { Leaving } from './leaving.ts';

const fast = { level: 1 };
const fastBrotli = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };
const encoders: readonly [coding: ContentCoding, title: string, encode: (body: Buffer) => Buffer][] = [
  ['gzip', 'gzip', (body) => gzipSync(body, fast)],
  ['deflate', 'deflate', (body) => deflateSync(body, fast)],
  ['deflate', 'deflate without a frame', (body) => deflateRawSync(body, fast)],
  ['br', 'br', (body) => brotliCompressSync(body, fastBrotli)],
  ['zstd', 'zstd', (body) => zstdCompressSync(body)],
];

/** Decodes a body that is held as one that was read. */
async function decode(
  body: Buffer,
  coding: ContentCoding,
  { maxBytes = 1e8, budgetBytes = 1e9, signal = new Leaving() } = {},
) {
  const budget = new BodyBudget(budgetBytes);
  const holding = new Holding(budget);
  assert.ok(holding.hold(body.length));
  try {
    const plain = await decoded(body, coding, { maxBytes, holding, signal });
    assert.equal(budget.heldBytes, plain.length, 'what is held is the decoded body');
    return plain;
  } finally {
    holding.freeAll();
    assert.equal(budget.heldBytes, 0);
  }
}

describe('an encoded body', () => {
  for (const [coding, title, encode] of encoders) {
    it(`is decoded from ${title}, small and large`, async () => {
      const bodies = [
        Buffer.from('{"a":"é"}'),
        Buffer.from('x '.repeat(20_000)),
        randomBytes(3_000_000),
        Buffer.alloc(1_000_000, 'ab'),
      ];
      for (const body of bodies) assert.ok((await decode(encode(body), coding)).equals(body));
    });

    it(`that is no ${title}, or is cut, is refused`, async () => {
      const whole = encode(randomBytes(100_000));
      await assert.rejects(decode(whole.subarray(0, 50_000), coding), { code: 'invalid_body' });
      await assert.rejects(decode(Buffer.from('{"model":"m"}'), coding), { code: 'invalid_body' });
    });

    it(`of ${title} with something behind its end is refused`, async () => {
      const whole = encode(Buffer.from('{"model":"m"}'));
      for (const rest of [Buffer.from('{'), Buffer.alloc(200_000, 7), Buffer.alloc(1), Buffer.alloc(200_000)]) {
        await assert.rejects(decode(Buffer.concat([whole, rest]), coding), { code: 'invalid_body' });
      }
    });

    it(`of ${title} that grows too much is given up in time`, async () => {
      const bomb = encode(Buffer.alloc(20_000_000));
      await assert.rejects(decode(bomb, coding), { code: 'body_too_large' });
      const large = encode(randomBytes(2_000_000));
      await assert.rejects(decode(large, coding, { maxBytes: 1_500_000 }), { code: 'body_too_large' });
      await assert.rejects(decode(large, coding, { budgetBytes: large.length + 1_000_000 }), { code: 'overloaded' });
    });
  }

  it('of zstd with a window that nobody needs is refused', async () => {
    const params = { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_contentSizeFlag]: 0 };
    const wide = zstdCompressSync(randomBytes(10_000_000), { params });
    await assert.rejects(decode(wide, 'zstd'), { code: 'invalid_body' });
  });

  it('is decoded no further when its client leaves', async () => {
    const signal = new Leaving();
    const decoding = decode(gzipSync(randomBytes(5_000_000)), 'gzip', { signal });
    setImmediate(() => signal.abort());
    await assert.rejects(decoding, { code: 'client_closed' });
    await assert.rejects(decode(gzipSync('x'), 'gzip', { signal }), { code: 'client_closed' });
  });
});

describe('the coding of a body', () => {
  const interest = new FieldInterest({ noted: ['content-encoding'], withheld: [] });
  const codingIn = (lines: string) => contentCoding(parseRequestHead(`POST / HTTP/1.1\r\nHost: x${lines}`, interest));

  it('is one that is known, or none', () => {
    assert.equal(codingIn(''), null);
    for (const none of ['identity', 'Identity', '']) assert.equal(codingIn(`\r\nContent-Encoding: ${none}`), null);
    assert.equal(codingIn('\r\ncontent-encoding: X-GZip'), 'gzip');
    for (const [coding] of encoders) assert.equal(codingIn(`\r\ncontent-encoding: ${coding}`), coding);
    for (const one of ['gzip,', ', gzip', 'gzip\r\ncontent-encoding:']) {
      assert.equal(codingIn(`\r\ncontent-encoding: ${one}`), 'gzip');
    }
    for (const other of [
      'gzip, gzip',
      'gzip\r\ncontent-encoding: br',
      'identity\r\ncontent-encoding: gzip',
      'compress',
      'aws-chunked',
      'gzip;q=1',
    ]) {
      assert.throws(() => codingIn(`\r\ncontent-encoding: ${other}`), { code: 'unsupported_encoding' });
    }
  });
});
