import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ChunkWalk, chunkOf, lastChunk } from './chunk-walk.ts';

/** Walks `text` in the given pieces. Returns the data, and how much of the text was walked over. */
function walkAll(text: string, cuts: readonly number[] = []) {
  const bytes = Buffer.from(text, 'latin1');
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  const walk = new ChunkWalk();
  let data = '';
  let plain = true;
  let at = 0;
  for (const end of ends) {
    if (walk.done || walk.broken) break;
    at = walk.walk(bytes, at, end);
    plain &&= walk.plain;
    for (let i = 0; i < walk.parts.length; i += 2) data += bytes.toString('latin1', walk.parts[i], walk.parts[i + 1]);
  }
  return { walk, data, at, plain };
}

const octets = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) });
const chunks = fc.array(octets.filter((text) => text !== ''));

describe('the walk over a chunked body', () => {
  it('finds the data and the end of any body, however it is cut into pieces', () => {
    fc.assert(
      fc.property(chunks, fc.array(fc.nat()), octets, (data, cuts, after) => {
        const body = data.map(chunkOf).join('') + lastChunk;
        const walked = walkAll(body + after, cuts);
        assert.ok(walked.walk.done && !walked.walk.broken && walked.plain);
        assert.equal(walked.data, data.join(''));
        assert.equal(walked.at, body.length);
      }),
    );
  });

  it('knows where the last whole chunk of each piece ends', () => {
    fc.assert(
      fc.property(chunks, fc.nat(), (data, cut) => {
        const body = data.map(chunkOf).join('');
        const bytes = Buffer.from(body, 'latin1');
        const end = cut % (bytes.length + 1);
        const walk = new ChunkWalk();
        walk.walk(bytes, 0, end);
        const ends = data.map(
          (_, n) =>
            data
              .slice(0, n + 1)
              .map(chunkOf)
              .join('').length,
        );
        assert.equal(walk.boundary, Math.max(0, ...ends.filter((one) => one <= end)));
      }),
    );
  });

  it('walks over extensions and trailers, and says that it did', () => {
    for (const body of [
      '3;a=b\r\nabc\r\n0\r\n\r\n',
      '3\r\nabc\r\n0;x\r\n\r\n',
      '3\r\nabc\r\n0\r\nX: y\r\nZ: q\r\n\r\n',
    ]) {
      const { walk, data, plain } = walkAll(body);
      assert.ok(walk.done, body);
      assert.equal(data, 'abc');
      assert.equal(plain, false);
    }
  });

  it('says so of every piece of a chunk that has an extension, and of no other', () => {
    const bytes = Buffer.from('3\r\nabc\r\n3;a\r\ndef\r\n3\r\nghi\r\n', 'latin1');
    const adorned = { from: bytes.indexOf(';'), to: bytes.indexOf('def\r\n') + 'def\r\n'.length };
    const walk = new ChunkWalk();
    for (let at = 0; at < bytes.length; at++) {
      walk.walk(bytes, at, at + 1);
      assert.equal(walk.plain, at < adorned.from || at >= adorned.to, `at ${at}`);
    }
  });

  it('reaches no boundary where the coding breaks', () => {
    for (const body of ['3\r\nabc\rX', '0\r\n\rX']) {
      const { walk } = walkAll(body);
      assert.ok(walk.broken && walk.boundary === 0, body);
    }
  });

  it('takes extensions of every form', () => {
    for (const extension of [';a', ';a=b', ';a;b=c;d', ';a="b;\xe9 \\"\t"', ';a=""', ';a="";b']) {
      assert.equal(walkAll(`3${extension}\r\nabc\r\n0\r\n\r\n`).data, 'abc');
    }
  });

  it('refuses what is not the coding', () => {
    for (const body of [
      ...[
        ';',
        ';;a',
        '; a',
        ';a ',
        ';a =b',
        ';a=',
        ';a= b',
        ';a=b c',
        ';"a"',
        ';a="',
        ';a="b"c',
        ';a="\0"',
        ';a="\\\n"',
        ';\xe9',
      ].map((extension) => `3${extension}\r\nabc\r\n0\r\n\r\n`),
      ...[
        'X',
        ': y',
        ' X: y',
        'X : y',
        'X: \0',
        'X: y\rZ: q',
        '\xe9: y',
        'Content-Length: 5',
        'transfer-encoding:x',
      ].map((trailer) => `0\r\n${trailer}\r\n\r\n`),
      '\r\n',
      'g\r\n',
      '3\nabc\r\n0\r\n\r\n',
      '3\r\nabc0\r\n\r\n',
      '3\r\nabc\r0\r\n\r\n',
      '3\r\nabc\n0\r\n\r\n',
      '3 \r\nabc\r\n0\r\n\r\n',
      '0x3\r\nabc\r\n',
      '+3\r\nabc\r\n',
      '-1\r\n',
      '1_0\r\n',
      '000000003\r\nabc\r\n',
      'fffffffff\r\n',
      '3;a\nb\r\nabc\r\n',
      '3;a\0\r\nabc\r\n',
      '0\r\nX: y\nZ: q\r\n\r\n',
      '0\r\n\n',
      `3;${'x'.repeat(9000)}\r\nabc\r\n0\r\n\r\n`,
      `0\r\n${'X: y\r\n'.repeat(3000)}\r\n`,
    ]) {
      assert.ok(walkAll(body).walk.broken, JSON.stringify(body.slice(0, 40)));
    }
  });
});
