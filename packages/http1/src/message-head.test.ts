import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FieldInterest, InvalidHead, mayBecomeRequest, parseRequestHead, parseResponseHead } from './message-head.ts';

const interest = new FieldInterest({ noted: ['content-type', 'x-id'], withheld: ['host', 'x-own'] });
const firstLine = 'POST /v1/completions HTTP/1.1\r\nHost: h';

function request(...fields: string[]) {
  return parseRequestHead([firstLine, ...fields].join('\r\n'), interest);
}

function answer(...lines: string[]) {
  return parseResponseHead(lines.join('\r\n'), interest);
}

function refuses(read: () => unknown, what: string): void {
  assert.throws(read, InvalidHead, JSON.stringify(what));
}

describe('the head of a request', () => {
  it('has a method, a target and a version, as they came', () => {
    const head = parseRequestHead('GET http://h/x?%41 HTTP/1.0', interest);
    assert.deepEqual([head.method, head.target, head.minor], ['GET', 'http://h/x?%41', 0]);
    assert.deepEqual([head.contentLength, head.chunked, head.headers.lines], [-1, false, '']);
  });

  it('is refused when its first line is not exactly right', () => {
    for (const line of [
      '',
      'GET',
      'GET /',
      'GET / ',
      'GET / HTTP/1.1 ',
      'GET  / HTTP/1.1',
      'GET /  HTTP/1.1',
      'GET /a b HTTP/1.1',
      ' GET / HTTP/1.1',
      'GET\t/\tHTTP/1.1',
      'GET /\x00 HTTP/1.1',
      'GET /\x7f HTTP/1.1',
      'GET /\xe9 HTTP/1.1',
      'GET / HTTP/2.0',
      'GET / HTTP/1.2',
      'GET / HTTP/1.10',
      'GET / http/1.1',
      'GET / HTTP/1.1\n',
      'GET / HTTP/1.1\r',
      'get / HTTP/1.1',
      'GOT / HTTP/1.1',
      'CONNECT h:443 HTTP/1.1',
      'PRI * HTTP/2.0',
      '\r\nGET / HTTP/1.1',
    ]) {
      refuses(() => parseRequestHead(`${line}\r\nHost: h`, interest), line);
    }
  });

  it('is refused for a field line that is not exactly right', () => {
    for (const line of [
      '',
      ':',
      ': x',
      'x',
      'a b: x',
      'a : x',
      ' a: x',
      '\ta: x',
      'a\xe9: x',
      '"a": x',
      'a\0: x',
      'a: \0',
      'a: x\ry',
      'a: x\ny',
      'a: x\x7f',
      'a: x\r',
      'a: x\r\r\nb: y',
      'a: x\r\n folded',
      'a: x\n\nb: y',
    ]) {
      refuses(() => request(line), line);
      refuses(() => request(line, 'b: y'), line);
      refuses(() => answer('HTTP/1.1 200 OK', line, 'b: y'), line);
    }
  });

  it('names its host once', () => {
    const read = (...lines: string[]) => parseRequestHead(lines.join('\r\n'), interest);
    refuses(() => read('GET / HTTP/1.1'), 'no host');
    refuses(() => read('GET / HTTP/1.1', 'Host: a', 'hOST: a'), 'two hosts');
    refuses(() => read('GET / HTTP/1.0', 'Host: a', 'Host: b'), 'two hosts');
    for (const host of ['', 'a b', 'a, b', 'u@h', 'h:x', 'h/'])
      refuses(() => read('GET / HTTP/1.1', `Host: ${host}`), host);
    assert.equal(read('GET / HTTP/1.1', 'host:\t[::1]:80 ').host, '[::1]:80');
    assert.equal(read('GET / HTTP/1.0').host, '');
  });

  it('has one length of digits, or the chunked coding, or neither', () => {
    assert.equal(request('Content-Length: 007').contentLength, 7);
    assert.equal(request('transfer-encoding: Chunked ').chunked, true);
    for (const length of ['', '+5', '-5', '5,5', '5, 5', '5 5', '0x5', '1e1', '5.0', '\xb2', '1'.repeat(16)]) {
      refuses(() => request(`Content-Length: ${length}`), length);
    }
    for (const coding of [
      '',
      'gzip',
      'identity',
      'gzip, chunked',
      'chunked, chunked',
      'chunked,',
      'chunked\t',
      '"chunked"',
    ]) {
      refuses(() => request(`Transfer-Encoding: ${coding}`), coding);
    }
    const pairs = ['Content-Length: 5', 'Transfer-Encoding: chunked', 'Transfer-Encoding:'];
    for (const one of pairs) for (const other of pairs) refuses(() => request(one, 'a: b', other), `${one}, ${other}`);
    refuses(() => parseRequestHead('POST / HTTP/1.0\r\nTransfer-Encoding: chunked', interest), 'HTTP/1.0');
  });

  it('has so many fields at most', () => {
    const lines = ['GET / HTTP/1.1', 'Host: h', 'a: 1', 'a: 2'].join('\r\n');
    assert.equal(parseRequestHead(lines, interest, { maxFields: 3 }).fieldCount, 3);
    refuses(() => parseRequestHead(lines, interest, { maxFields: 2 }), 'three fields');
    assert.equal(request(...new Array(255).fill('a: 1')).fieldCount, 256);
    refuses(() => request(...new Array(256).fill('a: 1')), '257 fields');
  });

  it('says whether the connection goes on', () => {
    const read = (...values: string[]) => {
      const { close, keepAlive } = request(...values.map((value) => `Connection: ${value}`));
      return { close, keepAlive };
    };
    assert.deepEqual(read(), { close: false, keepAlive: false });
    assert.deepEqual(read('Close'), { close: true, keepAlive: false });
    assert.deepEqual(read('x,\tKEEP-ALIVE ,'), { close: false, keepAlive: true });
    assert.deepEqual(read('keep-alive', 'x-y, close'), { close: true, keepAlive: true });
    assert.deepEqual(read('closed', '\xa0close'), { close: false, keepAlive: false });
  });

  it('says what is expected and what it would upgrade to', () => {
    const head = request('EXPECT: 100-Continue', 'Upgrade: WebSocket');
    assert.deepEqual([head.expect, head.upgrade], ['100-continue', 'websocket']);
    assert.deepEqual([request().expect, request().upgrade], [undefined, undefined]);
  });
});

describe('what goes on to the next hop', () => {
  it('is every field as it came, but for those of the hop and those that are withheld', () => {
    const head = request('A:1', 'Connection: keep-alive', 'X-OWN: 2', 'b:  3\t', 'Upgrade: h2c', 'TE: x', 'C:', 'a: 4');
    assert.equal(head.headers.lines, 'A:1\r\nb:  3\t\r\nC:\r\na: 4\r\n');
    assert.deepEqual(head.headers.list, ['A', '1', 'b', '3', 'C', '', 'a', '4']);
    assert.equal(request('Content-Length: 5', 'Expect: x').headers.lines, 'Content-Length: 5\r\nExpect: x\r\n');
  });

  it('is without the fields that Connection names, wherever they stand', () => {
    const head = request('X-Y: 1', 'Connection: close, x-y,, Z', 'x-y: 2', 'A: 3', 'z: 4');
    assert.equal(head.headers.lines, 'A: 3\r\n');
  });

  it('is what is left of any list of fields', () => {
    const names = fc.constantFrom(
      'a',
      'X-Id',
      'Host-',
      'x-own',
      'TE',
      'te-',
      'Keep-Alive',
      'x-owm',
      'Content-Type',
      'h_',
    );
    const values = fc.string({ unit: fc.constantFrom('a', ' ', ':', ',', '\xff'), maxLength: 5 });
    const dropped = ['x-own', 'te', 'keep-alive'];
    fc.assert(
      fc.property(fc.array(fc.tuple(names, values)), (fields) => {
        const head = request(...fields.map(([name, value]) => `${name}:${value}`));
        const kept = fields.filter(([name]) => !dropped.includes(name.toLowerCase()));
        assert.deepEqual(
          head.headers.list,
          kept.flatMap(([name, value]) => [name, value.replace(/^ +| +$/g, '')]),
        );
        assert.equal(head.headers.lines, kept.map(([name, value]) => `${name}:${value}\r\n`).join(''));
        assert.equal(head.noted('x-id'), fields.find(([name]) => name === 'X-Id')?.[1].replace(/^ +| +$/g, ''));
      }),
    );
  });
});

describe('the fields that a reader notes', () => {
  it('are found by their first value in any case', () => {
    const head = request('CONTENT-TYPE: a', 'x-id: 1', 'X-Id: 2');
    assert.deepEqual([head.noted('content-type'), head.noted('x-id')], ['a', '1']);
    assert.equal(request().noted('x-id'), undefined);
    assert.equal(request('x-id:').noted('x-id'), '');
  });

  it('may be withheld, be of the hop, be named twice, and end in any character', () => {
    const names = ['te', 'x-own', 'x-own', 'under_', 'x^', 'x1', 'host'];
    const reader = new FieldInterest({ noted: names, withheld: ['x-own'] });
    const head = parseRequestHead(`${firstLine}\r\nTE: a\r\nX-Own: b\r\nUNDER_: c\r\nX^: d\r\nx1: e`, reader);
    assert.deepEqual(
      names.map((name) => head.noted(name)),
      ['a', 'b', 'b', 'c', 'd', 'e', 'h'],
    );
    assert.equal(head.headers.lines, 'Host: h\r\nUNDER_: c\r\nX^: d\r\nx1: e\r\n');
  });

  it('are named by the reader, in a way that can be found', () => {
    assert.throws(() => request().noted('x-other'), TypeError);
    for (const name of ['X-Id', '', 'a b', 'x'.repeat(64)]) {
      assert.throws(() => new FieldInterest({ noted: [name], withheld: [] }), TypeError);
      assert.throws(() => new FieldInterest({ noted: [], withheld: [name] }), TypeError);
    }
  });
});

describe('the head of an answer', () => {
  it('has a status, with and without a reason', () => {
    for (const line of ['HTTP/1.1 200 OK', 'HTTP/1.1 200', 'HTTP/1.1 200 ', 'HTTP/1.0 200 caf\xe9\tx']) {
      assert.equal(answer(line, 'a: b').status, 200, line);
    }
    assert.equal(answer('HTTP/1.1 599 x').status, 599);
    assert.equal(answer('HTTP/1.0 200 OK').minor, 0);
  });

  it('is refused when its first line is not exactly right', () => {
    for (const line of [
      '',
      'HTTP/1.1',
      'HTTP/1.1 ',
      'HTTP/1.1 20',
      'HTTP/1.1 2000',
      'HTTP/1.1  200',
      'HTTP/1.1\t200',
      'HTTP/1.1-200',
      'HTTP/1.1 099',
      'HTTP/1.1 600',
      'HTTP/1.1 2x0',
      'HTTP/1.1 +20',
      'HTTP/1.1 200\tOK',
      'HTTP/1.1 200 O\0',
      'HTTP/1.1 200 O\r',
      'HTTP/1.1 200 O\nK',
      'HTTP/2.0 200 OK',
      'HTTP/1.2 200 OK',
      'ICY 200 OK',
      'http/1.1 200 OK',
    ]) {
      refuses(() => answer(line), line);
      refuses(() => answer(line, 'a: b'), line);
    }
  });

  it('may have another coding, which ends with the connection', () => {
    const head = answer('HTTP/1.1 200 OK', 'Transfer-Encoding: gzip, chunked');
    assert.deepEqual([head.otherCoding, head.chunked], [true, false]);
    refuses(() => answer('HTTP/1.1 200 OK', 'Transfer-Encoding: gzip', 'Content-Length: 1'), 'both');
  });
});

describe('the beginning of a head', () => {
  it('may become one as long as nothing in it is wrong', () => {
    const whole = `${firstLine}\r\nA: b\tc\xe9`;
    for (let length = 0; length <= whole.length; length++)
      assert.ok(mayBecomeRequest(whole.slice(0, length), interest));
    assert.ok(mayBecomeRequest(`${whole}\r`, interest));
  });

  it('cannot when it is something else', () => {
    for (const text of [
      '\x16\x03\x01',
      ' GET',
      '\r\n',
      'GET /\n',
      'GET / HTTP/1.1\r\nA\0',
      'GET / HTTP/3.0\r\n',
      'A\rB',
      'a\r\n',
    ]) {
      assert.ok(!mayBecomeRequest(text, interest), JSON.stringify(text));
    }
  });
});
