import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { parseTarget } from './authority.ts';
import { ChunkWalk } from './chunk-walk.ts';
import { endToEndHeaders } from './header-lines.ts';
import { FieldInterest, InvalidHead, parseRequestHead } from './message-head.ts';

/** The first request of what a client sent, as a server read it; null when it read no whole one. */
type FirstRequest = {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  readonly body: string;
} | null;

const interest = new FieldInterest({ noted: [], withheld: [] });

function asWeRead(text: string): FirstRequest {
  const headEnd = text.indexOf('\r\n\r\n');
  if (headEnd < 0) return null;
  try {
    const head = parseRequestHead(text.slice(0, headEnd), interest);
    const body = bodyOf(text.slice(headEnd + 4), head);
    if (body === null || parseTarget(head.target) === null) return null;
    return { method: head.method, target: head.target, headers: head.headers.list, body };
  } catch (error) {
    assert.ok(error instanceof InvalidHead, String(error));
    return null;
  }
}

function bodyOf(text: string, { chunked, contentLength }: { chunked: boolean; contentLength: number }): string | null {
  if (!chunked) return text.length < contentLength ? null : text.slice(0, Math.max(0, contentLength));
  const walk = new ChunkWalk();
  const bytes = Buffer.from(text, 'latin1');
  walk.walk(bytes, 0, bytes.length);
  let body = '';
  for (let i = 0; i < walk.parts.length; i += 2) body += bytes.toString('latin1', walk.parts[i], walk.parts[i + 1]);
  return walk.done ? body : null;
}

/** Node's own server, which shows what llhttp makes of bytes in its strict mode. */
class NodeServer {
  readonly #server = createServer();
  #first: FirstRequest = null;

  async listen(): Promise<void> {
    this.#server.on('clientError', (_error, socket) => socket.destroy());
    for (const event of ['request', 'checkContinue', 'checkExpectation'] as const) {
      this.#server.on(event, (request) => {
        const parts: Buffer[] = [];
        request.on('data', (part: Buffer) => parts.push(part));
        request.on('error', () => {});
        request.on('end', () => {
          this.#first ??= {
            method: request.method ?? '',
            target: request.url ?? '',
            headers: endToEndHeaders(request.rawHeaders),
            body: Buffer.concat(parts).toString('latin1'),
          };
          request.socket.destroy();
        });
      });
    }
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async read(text: string): Promise<FirstRequest> {
    this.#first = null;
    const socket = connect((this.#server.address() as AddressInfo).port, '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    socket.end(Buffer.from(text, 'latin1'));
    await once(socket, 'close');
    return this.#first;
  }

  close(): void {
    this.#server.close();
  }
}

/** Mostly `usual`, at times one of `odd`. */
function rarely(usual: string, ...odd: string[]): fc.Arbitrary<string> {
  return fc.oneof({ arbitrary: fc.constant(usual), weight: 40 }, { arbitrary: fc.constantFrom(...odd), weight: 1 });
}

function joined(...parts: fc.Arbitrary<string>[]): fc.Arbitrary<string> {
  return fc.tuple(...parts).map((all) => all.join(''));
}

function many(part: fc.Arbitrary<string>): fc.Arbitrary<string> {
  return fc.array(part, { maxLength: 3 }).map((all) => all.join(''));
}

const octet = fc.constantFrom(...'\0\t\n\v\r\x1b "#%,:;=@[]\\{}ab019\x7f\x80\xff');
const oddText = fc.string({ unit: octet, maxLength: 4 });
const lineEnd = rarely('\r\n', '\n', '\r', '\r\r\n', '\n\r', ' \r\n', '\t\r\n', '\r\n ', '\r\n\t');
const blank = rarely(' ', '', '  ', '\t', '\v');

const requestLine = joined(
  rarely('POST', 'GET', 'HEAD', 'post', 'FOO', 'CONNECT', 'PRI', ' POST', 'OPTIONS', 'M-SEARCH', ''),
  blank,
  rarely('/v1/models?a=b', 'http://h/x', 'https://h', '*', 'x', '/%zz', '/a\x80b', '/"', '//h'),
  blank,
  rarely('HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'HTTP/1.10', 'http/1.1', 'HTTP/11', 'RTSP/1.1', ''),
  lineEnd,
);
const host = joined(
  rarely('Host: h', '', 'Host: h:80', 'HOST: [::1]:8000', 'host:', 'Host: h, h', 'Host: a b', 'Host : h', 'Host: h@h'),
  lineEnd,
);
const field = joined(
  fc.oneof(
    joined(
      rarely('X-Y', "x!#$%&'*", 'Content-Type', 'Expect', 'TE', 'Keep-Alive', 'Upgrade', '', 'X Y', 'X\x80'),
      rarely(':', ': ', ':\t ', ' :', ''),
      fc.oneof(fc.constantFrom('x', 'a, b', '', 'caf\xe9', '"q"', '100-continue'), oddText),
    ),
    joined(
      fc.constant('Connection: '),
      fc.constantFrom('keep-alive', 'close', 'x-y, close', 'X-y', 'Close', ',', 'upgrade', 'transfer-encoding'),
    ),
  ),
  lineEnd,
);
const length = joined(
  rarely('Content-Length', 'content-length', 'content-length ', ' Content-Length'),
  rarely(':', ': ', ':  '),
  rarely('5', '0', '05', '+5', '-5', '5,5', '5, 5', '0x5', '5 5', '', '9'.repeat(20), '5\v', '1e1', '5\t'),
  lineEnd,
);
const coding = joined(
  rarely('Transfer-Encoding:', 'transfer-encoding: ', 'Transfer-Encoding :', 'Transfer_Encoding: '),
  rarely(
    'chunked',
    'CHUNKED',
    'gzip, chunked',
    'chunked, chunked',
    'identity',
    ' chunked',
    'xchunked',
    '',
    '"chunked"',
  ),
  lineEnd,
);
const chunk = joined(
  rarely('5', '05', '5 ', '5;a', '5;a=b;c="d\\""', '5;', '5; a', '5;a=', '5;"', '5;a="\t"', '0x5', '6', '4', '+5', ''),
  lineEnd,
  fc.constant('hello'),
  lineEnd,
);
const lastChunk = joined(
  rarely('0', '', '00', '0;a', '0 '),
  lineEnd,
  rarely('', 'X: y\r\n', 'X\r\n', ': y\r\n', ' X: y\r\n', 'X : y\r\n', 'X: y\n', 'X: \v\r\n', 'Content-Length: 5\r\n'),
  lineEnd,
);
const empty = fc.constant('\r\n');
const framed = fc.oneof(
  joined(many(field), empty),
  joined(many(field), length, many(field), empty, fc.constant('hello world')),
  joined(many(field), coding, many(field), empty, many(chunk), lastChunk),
  joined(many(fc.oneof(length, coding, field)), empty, many(chunk), lastChunk),
);
const whole = joined(requestLine, host, framed);

/** A message, and at times the same with an octet put somewhere or taken out. */
const bytes = fc
  .tuple(whole, fc.nat(), fc.constantFrom('none', 'none', 'none', 'put', 'take'), octet)
  .map(([text, place, change, odd]) => {
    const at = place % text.length;
    if (change === 'none') return text;
    return text.slice(0, at) + (change === 'put' ? odd : '') + text.slice(change === 'put' ? at : at + 1);
  });

describe('what a request is, compared with the server of Node', () => {
  const node = new NodeServer();
  before(() => node.listen());
  after(() => node.close());

  it('is never more than llhttp reads in strict mode, and the same where both read it', async () => {
    await fc.assert(
      fc.asyncProperty(bytes, async (text) => {
        const ours = asWeRead(text);
        if (ours !== null) assert.deepEqual(ours, await node.read(text));
      }),
      { numRuns: 2000 },
    );
  });

  it('is read at all', async () => {
    for (const text of [
      'POST /v1/models?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nA: b\r\nConnection: x\r\nX: y\r\n\r\nhello',
      'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n5;a="b"\r\nhello\r\n0\r\nX: y\r\n\r\n',
      'GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n',
      'GET / HTTP/1.0\r\n\r\n',
    ]) {
      const ours = asWeRead(text);
      assert.notEqual(ours, null, text);
      assert.deepEqual(ours, await node.read(text));
    }
  });
});
