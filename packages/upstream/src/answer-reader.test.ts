import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { AnswerReader, type AnswerTarget, answerInterest, type Reading } from './answer-reader.ts';

interface Read {
  reading: Reading;
  /** Informational heads, as their statuses' places. */
  informations: number;
  status: number;
  headers: readonly string[];
  body: string;
  reusable: boolean;
  endsWithConnection: boolean;
}

/** Reads `text` in pieces that end at `cuts`, each in the same memory. */
function readAnswer(text: string, cuts: readonly number[] = [], bodiless = false): Read {
  const bytes = Buffer.from(text, 'latin1');
  const lent = Buffer.alloc(Math.max(1, bytes.length));
  const reader = new AnswerReader(answerInterest([]));
  reader.begin(bodiless);
  const read: Read = {
    reading: 'more',
    informations: 0,
    status: 0,
    headers: [],
    body: '',
    reusable: false,
    endsWithConnection: false,
  };
  const target: AnswerTarget = {
    onInformation: () => {
      read.informations++;
    },
    onHead({ status, headers }) {
      read.status = status;
      read.headers = headers.list;
    },
    onBytes(piece, from, to) {
      assert.ok(to > from);
      read.body += piece.toString('latin1', from, to);
    },
    onChunks(piece, _from, _to, { parts }) {
      for (let i = 0; i < parts.length; i += 2) read.body += piece.toString('latin1', parts[i], parts[i + 1]);
    },
  };
  let from = 0;
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  for (const to of [...ends, bytes.length]) {
    if (to === from || read.reading !== 'more') continue;
    lent.fill('!');
    bytes.copy(lent, 0, from, to);
    read.reading = reader.read(lent, to - from, target);
    from = to;
  }
  // What follows the answer and was not read in one piece with it is not the reader's.
  read.reusable = reader.reusable && from === bytes.length;
  read.endsWithConnection = reader.endsWithConnection;
  return read;
}

const ok = 'HTTP/1.1 200 OK\r\n';

describe('an answer', () => {
  const whole: Record<string, [answer: string, status: number, body: string, reusable: boolean]> = {
    'with a length': [`${ok}Content-Length: 5\r\n\r\nhello`, 200, 'hello', true],
    'with a length of nothing': [`${ok}Content-Length: 0\r\n\r\n`, 200, '', true],
    'of chunks': [`${ok}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n`, 200, 'hello!', true],
    'with extensions and trailers': [
      `${ok}transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;z\r\nX-Sum: 1\r\n\r\n`,
      200,
      'hello',
      true,
    ],
    'with 204': ['HTTP/1.1 204 No Content\r\n\r\n', 204, '', true],
    'with 304 and a length': ['HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n', 304, '', true],
    'that closes': [`${ok}Connection: close\r\nContent-Length: 1\r\n\r\nx`, 200, 'x', false],
    'of HTTP/1.0': ['HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx', 200, 'x', false],
    'of HTTP/1.0 that is kept': [
      'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx',
      200,
      'x',
      true,
    ],
    'of HTTP/1.0 in chunks': [
      'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n',
      200,
      'x',
      false,
    ],
    'behind several informational ones': [
      `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n${ok}Content-Length: 2\r\n\r\nhi`,
      200,
      'hi',
      true,
    ],
    'without a reason': ['HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', 200, '', true],
  };
  for (const [what, [answer, status, body, reusable]] of Object.entries(whole)) {
    it(`${what} is read the same however it is cut`, () => {
      const expected = readAnswer(answer);
      assert.deepEqual([expected.reading, expected.status, expected.body], ['whole', status, body]);
      assert.equal(expected.reusable, reusable);
      const everyByte = Array.from({ length: answer.length }, (_, i) => i);
      assert.deepEqual(readAnswer(answer, everyByte), expected);
      fc.assert(
        fc.property(fc.array(fc.nat(answer.length), { maxLength: 8 }), (cuts) => {
          assert.deepEqual(readAnswer(answer, cuts), expected);
        }),
      );
    });

    it(`${what} with bytes behind it leaves a connection that is not used again`, () => {
      const read = readAnswer(`${answer}HTTP/1.1 200 OK\r\n`);
      assert.deepEqual([read.reading, read.status, read.body, read.reusable], ['whole', status, body, false]);
    });
  }

  it('ends with its connection when nothing else says where it ends', () => {
    const read = readAnswer(`${ok}Content-Type: text/plain\r\n\r\nhello`);
    assert.deepEqual([read.reading, read.body, read.endsWithConnection], ['more', 'hello', true]);
    assert.equal(readAnswer(`${ok}Content-Length: 9\r\n\r\nhello`).endsWithConnection, false);
  });

  it('to HEAD has no body, whatever its head says', () => {
    for (const field of ['Content-Length: 5', 'Transfer-Encoding: chunked', 'X: y']) {
      const read = readAnswer(`${ok}${field}\r\n\r\n`, [], true);
      assert.deepEqual([read.reading, read.body, read.reusable], ['whole', '', true]);
    }
  });

  it('gives its end-to-end fields as they came', () => {
    const { headers } = readAnswer(
      `${ok}X-Odd:  \xe4 \r\nKeep-Alive: timeout=5\r\nConnection: x-hop\r\nX-Hop: 1\r\nSet-Cookie: a\r\nset-cookie: b\r\ncontent-length: 0\r\n\r\n`,
    );
    assert.deepEqual(headers, ['X-Odd', '\xe4', 'Set-Cookie', 'a', 'set-cookie', 'b', 'content-length', '0']);
  });

  const refused: Record<string, string> = {
    'another protocol': 'SSH-2.0-OpenSSH\r\n',
    'another version': 'HTTP/2.0 200 OK\r\n\r\n',
    'an upgrade': 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n',
    'bare line feeds': 'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
    'a line feed in front': '\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
    'two lengths': `${ok}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`,
    'a length and chunks': `${ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'another transfer coding': `${ok}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    'a negative length': `${ok}Content-Length: -1\r\n\r\n`,
    'a folded line': `${ok}X: a\r\n b\r\n\r\n`,
    'a blank before a colon': `${ok}X : a\r\n\r\n`,
    'a control character': `${ok}X: a\0b\r\n\r\n`,
    'too many fields': `${ok}${'X: y\r\n'.repeat(300)}\r\n`,
    'a head without end': `${ok}${`X: ${'y'.repeat(1000)}\r\n`.repeat(70)}`,
    'a line without end': `HTTP/1.1 200 ${'y'.repeat(70_000)}`,
    'a status of two digits': 'HTTP/1.1 20 OK\r\n\r\n',
    'an informational answer that is none': 'HTTP/1.1 100\r\nX\r\n\r\n',
  };
  for (const [what, answer] of Object.entries(refused)) {
    it(`is refused for ${what}, in one piece or byte by byte`, () => {
      assert.equal(readAnswer(answer).reading, 'protocol');
      const everyByte = Array.from({ length: Math.min(answer.length, 3000) }, (_, i) => i);
      assert.equal(readAnswer(answer, everyByte).reading, 'protocol');
    });
  }

  it('is cut short when its chunks are none', () => {
    for (const body of ['zz\r\n', '5\r\nhelloo\r\n', '-1\r\n', 'fffffffff\r\n', '5\nhello\r\n0\r\n\r\n']) {
      assert.equal(readAnswer(`${ok}Transfer-Encoding: chunked\r\n\r\n${body}`).reading, 'truncated', body);
    }
  });

  it('of any bytes does no harm', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii' }), fc.array(fc.nat(60)), (text, cuts) => {
        for (const prefix of ['', ok, `${ok}Transfer-Encoding: chunked\r\n\r\n`]) readAnswer(prefix + text, cuts);
      }),
    );
  });
});

describe('the same reader', () => {
  it('reads one answer after the other, whatever the one before was like', () => {
    const reader = new AnswerReader(answerInterest([]));
    const answers = [
      `${ok}Transfer-Encoding: chunked\r\nKeep-Alive: timeout=7\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
      `${ok}Content-Length: 1\r\n\r\nx`,
      'HTTP/1.1 204 No Content\r\n\r\n',
    ];
    for (const answer of [...answers, ...answers]) {
      let status = 0;
      reader.begin(false);
      assert.equal(reader.begun, false);
      const reading = reader.read(Buffer.from(answer), answer.length, {
        onInformation: () => assert.fail(),
        onHead: (head) => {
          status = head.status;
        },
        onBytes: () => {},
        onChunks: () => {},
      });
      assert.deepEqual([reading, reader.reusable], ['whole', true]);
      assert.ok(status >= 200);
      assert.equal(reader.keepAliveMs, answer.includes('timeout=7') ? 7000 : undefined);
    }
  });
});
