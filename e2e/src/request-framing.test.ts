import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Engine, respond, startEngine } from '@llm-gateway/testing';
import { type Gateway, startGateway } from './gateway.ts';
import { type Conversation, talk } from './raw-client.ts';

const path = '/v1/completions';
const body = '{"model":"m"}';
const length = `Content-Length: ${body.length}`;
const chunked = 'Transfer-Encoding: chunked';
const chunks = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n0\r\n\r\n`;

/** A request whose first line, fields and body are as given. */
function request(fields: readonly string[], content: string, line = `POST ${path}?first HTTP/1.1`): string {
  return `${[line, 'Host: h', ...fields].join('\r\n')}\r\n\r\n${content}`;
}

const next = request([length], body, `POST ${path}?next HTTP/1.1`);

/**
 * What a client sends, in front of a second request on the same connection. The number: how many of
 * the two a strict reading contains.
 */
const cases: Readonly<Record<string, readonly [forwarded: 0 | 1 | 2, bytes: string]>> = {
  'a length': [2, request([length], body)],
  'a length with zeros in front': [2, request([`Content-Length: 00${body.length}`], body)],
  'two equal lengths': [0, request([length, length], body)],
  'two lengths in one line': [0, request([`Content-Length: ${body.length}, ${body.length}`], body)],
  'a length with a sign': [0, request([`Content-Length: +${body.length}`], body)],
  'a length in hexadecimal': [0, request(['Content-Length: 0xd'], body)],
  'a length with a blank inside': [0, request(['Content-Length: 1 3'], body)],
  'a length that is no number': [0, request(['Content-Length: all'], body)],
  'an empty length': [0, request(['Content-Length:'], body)],
  'a length past any integer': [0, request([`Content-Length: ${'9'.repeat(30)}`], body)],
  'a length by another name': [2, request(['Content_Length: 0', length], body)],
  'a length in a folded line': [0, request(['X: y', ` ${length}`], body)],
  'a length with a blank before its colon': [0, request([`Content-Length : ${body.length}`], body)],
  'a length named by Connection': [2, request(['Connection: content-length', length], body)],
  chunks: [2, request([chunked], chunks(body))],
  'chunks in any case': [2, request(['TRANSFER-ENCODING:  Chunked '], chunks(body))],
  'chunks and a length': [0, request([chunked, length], chunks(body))],
  'a length and chunks': [0, request([length, chunked], chunks(body))],
  'chunks, twice': [0, request([chunked, chunked], chunks(body))],
  'chunks in a list': [0, request(['Transfer-Encoding: chunked, chunked'], chunks(body))],
  'a coding before the chunks': [0, request(['Transfer-Encoding: gzip, chunked'], chunks(body))],
  'a coding after the chunks': [0, request(['Transfer-Encoding: chunked, identity'], chunks(body))],
  'a coding in quotes': [0, request(['Transfer-Encoding: "chunked"'], chunks(body))],
  'a coding with a control character': [0, request(['Transfer-Encoding: \x0bchunked'], chunks(body))],
  'a coding with a tab behind it': [0, request([`${chunked}\t`], chunks(body))],
  'a coding that is nearly chunked': [0, request(['Transfer-Encoding: xchunked'], chunks(body))],
  'a coding of none': [0, request(['Transfer-Encoding: identity'], body)],
  'an empty coding': [0, request(['Transfer-Encoding:', length], body)],
  'a coding in a value': [2, request([`X: Transfer-Encoding: chunked`, length], body)],
  'a coding behind a bare line feed': [0, request([`X: y\n${chunked}`, length], body)],
  'a coding behind a bare carriage return': [0, request([`X: y\r${chunked}`, length], body)],
  'chunks in HTTP/1.0': [0, request([chunked], chunks(body), `POST ${path}?first HTTP/1.0`)],
  'an extension': [2, request([chunked], `d;a=b;c="d"\r\n${body}\r\n0;e\r\n\r\n`)],
  'an extension without a name': [0, request([chunked], `d;\r\n${body}\r\n0\r\n\r\n`)],
  'an extension with a line feed': [0, request([chunked], `d;a\nb\r\n${body}\r\n0\r\n\r\n`)],
  'an extension with a carriage return': [0, request([chunked], `d;a\rb\r\n${body}\r\n0\r\n\r\n`)],
  trailers: [2, request([chunked], `d\r\n${body}\r\n0\r\nX: y\r\n\r\n`)],
  'a length as a trailer': [0, request([chunked], `d\r\n${body}\r\n0\r\nContent-Length: 5\r\n\r\n`)],
  'a trailer that is no field': [0, request([chunked], `d\r\n${body}\r\n0\r\nX\r\n\r\n`)],
  'a chunk that is longer than it says': [0, request([chunked], `c\r\n${body}\r\n0\r\n\r\n`)],
  'a chunk that is shorter than it says': [0, request([chunked], `e\r\n${body}\r\n0\r\n\r\n`)],
  'a chunk size with a sign': [0, request([chunked], `+d\r\n${body}\r\n0\r\n\r\n`)],
  'a chunk size with a prefix': [0, request([chunked], `0xd\r\n${body}\r\n0\r\n\r\n`)],
  'a chunk size with a blank': [0, request([chunked], `d \r\n${body}\r\n0\r\n\r\n`)],
  'a chunk size past any integer': [0, request([chunked], `1000000000000000d\r\n${body}\r\n0\r\n\r\n`)],
  'a chunk size behind an empty line': [0, request([chunked], `\r\nd\r\n${body}\r\n0\r\n\r\n`)],
  'chunks that end in line feeds': [0, request([chunked], `d\n${body}\n0\n\n`)],
  'a last chunk that ends in a line feed': [0, request([chunked], `d\r\n${body}\r\n0\r\n\n`)],
  'no blank line before the next request': [0, `POST ${path}?first HTTP/1.1\r\nHost: h\r\n${length}\r\n`],
  'lines that end in line feeds': [0, request([length], body).replaceAll('\r\n', '\n')],
  'a NUL in a value': [0, request(['X: \0', length], body)],
  'a name that is no token': [0, request(['X Y: z', length], body)],
  'a line without a colon': [0, request(['X', length], body)],
  'an empty name': [0, request([': x', length], body)],
  'no host': [0, `POST ${path}?first HTTP/1.1\r\n${length}\r\n\r\n${body}`],
  'two hosts': [0, request(['Host: h', length], body)],
  'a host with a user': [0, `POST ${path}?first HTTP/1.1\r\nHost: h@g\r\n${length}\r\n\r\n${body}`],
  'a host with a path': [0, `POST ${path}?first HTTP/1.1\r\nHost: h/g\r\n${length}\r\n\r\n${body}`],
  'two blanks in the first line': [0, request([length], body, `POST  ${path}?first HTTP/1.1`)],
  'a tab in the first line': [0, request([length], body, `POST ${path}?first\tHTTP/1.1`)],
  'a blank in the target': [0, request([length], body, `POST ${path}?fir st HTTP/1.1`)],
  'a version that is none': [0, request([length], body, `POST ${path}?first HTTP/1.7`)],
  'no version': [0, request([length], body, `POST ${path}?first`)],
  'HTTP/2': [0, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  'a CONNECT': [0, request([length], body, `CONNECT ${path} HTTP/1.1`)],
  'a method that is none': [0, request([length], body, `GOST ${path}?first HTTP/1.1`)],
  'the absolute form': [2, request([length], body, `POST http://h${path}?first HTTP/1.1`)],
  'the absolute form of another host': [0, request([length], body, `POST http://g${path}?first HTTP/1.1`)],
  'the absolute form of another scheme': [0, request([length], body, `POST ftp://h${path}?first HTTP/1.1`)],
  'a fragment': [0, request([length], body, `POST ${path}?first#x HTTP/1.1`)],
  'an escaped path': [2, request([length], body, `POST /v1/%63ompletions?first HTTP/1.1`)],
  'a path with dots': [1, request([length], body, `POST /v1/x/../completions?first HTTP/1.1`)],
  'another method': [1, request([length], body, `PUT ${path}?first HTTP/1.1`)],
  'empty lines in front': [2, `\r\n\r\n${request([length], body)}`],
  'an end of the connection': [1, request(['Connection: close', length], body)],
  'an end of the connection in HTTP/1.0': [1, request([length], body, `POST ${path}?first HTTP/1.0`)],
  'a connection that is kept in HTTP/1.0': [
    2,
    request(['Connection: keep-alive', length], body, `POST ${path}?first HTTP/1.0`),
  ],
  'an expectation that the server meets': [2, request(['Expect: 100-continue', length], body)],
  'an expectation that it does not': [0, request(['Expect: more', length], body)],
  'an upgrade to HTTP/2': [2, request(['Connection: upgrade, http2-settings', 'Upgrade: h2c', length], body)],
  'a head too large': [0, request([`X: ${'y'.repeat(20_000)}`, length], body)],
  'a target too large': [0, request([length], body, `POST ${path}?${'y'.repeat(20_000)} HTTP/1.1`)],
  'too many fields': [0, request([...new Array<string>(1000).fill('X: y'), length], body)],
};

describe('the framing of requests', () => {
  let engine: Engine;
  let gateway: Gateway;
  const conversations = new Map<string, Promise<Conversation>>();

  before(async () => {
    engine = await startEngine(() => respond(200, 'ok'));
    const limits = ['--client-headers-timeout-ms', '300', '--client-request-timeout-ms', '300'];
    gateway = await startGateway({
      engines: [engine],
      flags: { ingress: [...limits, '--client-keep-alive-ms', '300'] },
    });
    for (const [name, [, bytes]] of Object.entries(cases)) {
      const marked = (bytes + next).replace(/\?(?=first|next)/g, `?case=${encodeURIComponent(name)}&`);
      const conversation = talk(gateway.url, marked);
      conversations.set(name, conversation);
      conversation.catch(() => {});
    }
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  for (const [name, [expected]] of Object.entries(cases)) {
    it(`leads to ${expected} of 2 requests at the engine for ${name}`, async () => {
      const conversation = await conversations.get(name);
      const seen = engine.requests.filter(({ url }) => url.includes(`case=${encodeURIComponent(name)}&`));
      assert.equal(seen.length, expected, conversation?.received ?? '');
      for (const { body: received } of seen) assert.equal(received.toString(), body);
      assert.equal(conversation?.statuses.filter((status) => status === 200).length, expected);
      assert.ok(
        conversation?.statuses.every((status) => status < 500),
        conversation?.received,
      );
    });
  }

  it('leads to nothing else', async () => {
    await Promise.allSettled(conversations.values());
    assert.equal(
      engine.requests.length,
      Object.values(cases).reduce((sum, [expected]) => sum + expected, 0),
    );
    assert.deepEqual(engine.malformed, []);
    assert.equal(gateway.ingress[0]?.ended, false);
  });

  it('leaves no request unanswered that a client sent before it closed its side', async () => {
    const first = request([length], body);
    const { statuses } = await talk(gateway.url, first + first + next, { halfClose: true });
    assert.deepEqual(statuses, [200, 200, 200]);
  });

  it('takes an empty line behind a request for none', async () => {
    const { statuses } = await talk(gateway.url, `${request([length], body)}\r\n`);
    assert.deepEqual(statuses, [200]);
  });
});
