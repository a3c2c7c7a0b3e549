import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type Engine, respond, startEngine } from '@llm-gateway/testing';
import fc from 'fast-check';
import { type Gateway, startGateway } from './gateway.ts';
import { talk } from './raw-client.ts';

const path = '/v1/completions';
const body = '{"model":"m"}';

/** Mostly `usual`, at times one of `odd`. */
function rarely(usual: string, ...odd: string[]): fc.Arbitrary<string> {
  return fc.oneof({ arbitrary: fc.constant(usual), weight: 40 }, { arbitrary: fc.constantFrom(...odd), weight: 1 });
}

function joined(...parts: fc.Arbitrary<string>[]): fc.Arbitrary<string> {
  return fc.tuple(...parts).map((all) => all.join(''));
}

const end = rarely('\r\n', '\n', '\r', ' \r\n', '\r\r\n', '\r\n ');
const size = body.length.toString(16);
const length = joined(
  rarely('Content-Length:', 'content-length : ', ' Content-Length:', 'Content-Length\0:'),
  rarely(String(body.length), '0', '4', '20', '+13', '13,13', '13 0', '0x0d', '', '9'.repeat(20), '-1', '013'),
  end,
);
const coding = joined(
  rarely('Transfer-Encoding:', 'Transfer-Encoding :', 'Transfer_Encoding:', 'X: y\nTransfer-Encoding:'),
  rarely(
    'chunked',
    'Chunked',
    'chunked\t',
    '\x0bchunked',
    'chunked, chunked',
    'gzip, chunked',
    'identity',
    'xchunked',
    '',
  ),
  end,
);
const field = joined(rarely('X: y', 'Connection: close', 'Expect: 100-continue', 'X', 'X : y', ': y', 'X: \0'), end);
const chunks = joined(
  rarely(
    size,
    `0${size}`,
    `${size};a=b`,
    `${size};`,
    `${size} `,
    `0x${size}`,
    'c',
    'e',
    '0',
    `+${size}`,
    `${size};a\n`,
  ),
  end,
  fc.constant(body),
  end,
  rarely('0', '', '00', '0;a', '1'),
  end,
  rarely('', 'X: y\r\n', 'X\r\n', 'Content-Length: 5\r\n', 'POST / HTTP/1.1\r\n'),
  end,
);
const content = fc.oneof(
  joined(length, fc.constant('\r\n'), fc.constant(body)),
  joined(coding, fc.constant('\r\n'), chunks),
  joined(rarely('', 'X: y\r\n'), coding, length, fc.constant('\r\n'), chunks),
  joined(length, coding, fc.constant('\r\n'), fc.constant(body)),
);
const message = joined(
  rarely('POST ', 'GET ', 'post ', 'POST  ', '\r\nPOST ', '\nPOST '),
  rarely(path, `http://h${path}`, '/v1/%63ompletions'),
  // Replaced by what tells a request from every other one.
  fc.constant('?#'),
  rarely(' HTTP/1.1', ' HTTP/1.0', ' HTTP/1.2', '', ' HTTP/1.1 '),
  end,
  rarely('Host: h', '', 'Host: h\r\nHost: h', 'Host: h@h', 'Host : h'),
  end,
  rarely('', 'X: y\r\n'),
  fc.oneof(fc.constant(''), field),
  content,
);
/** What one client sends over one connection. */
const conversation = fc.array(message, { minLength: 1, maxLength: 3 });

/** What Node's server, which is strict, takes for requests in `bytes`. */
class StrictReading {
  readonly #server = createServer();
  #urls: string[] = [];

  async listen(): Promise<void> {
    this.#server.on('clientError', (_error, socket) => socket.destroy());
    this.#server.on('request', (request, response) => {
      request.on('error', () => {});
      request.resume().on('end', () => {
        this.#urls.push(request.url ?? '');
        response.end();
      });
    });
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async of(bytes: string): Promise<readonly string[]> {
    this.#urls = [];
    const socket = connect((this.#server.address() as AddressInfo).port, '127.0.0.1');
    socket.on('error', () => {}).resume();
    socket.end(bytes, 'latin1');
    await once(socket, 'close');
    return this.#urls;
  }

  close(): void {
    this.#server.close();
  }
}

describe('what reaches an engine of anything that a client sends', () => {
  const strict = new StrictReading();
  let engine: Engine;
  let gateway: Gateway;
  let count = 0;

  before(async () => {
    await strict.listen();
    engine = await startEngine(() => respond(200, 'ok'));
    const limits = ['--client-headers-timeout-ms', '200', '--client-request-timeout-ms', '200'];
    gateway = await startGateway({
      engines: [engine],
      flags: { ingress: [...limits, '--client-keep-alive-ms', '200'] },
    });
  });
  after(async () => {
    strict.close();
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it('is no more than a strict reading contains, and each connection ends within its limits', async () => {
    const property = fc.asyncProperty(fc.array(conversation, { minLength: 60, maxLength: 60 }), async (all) => {
      const sent = all.map((messages) => messages.map((text) => text.replace('?#', () => `?n=${count++};`)).join(''));
      const seenBefore = engine.requests.length;
      const [answers, readings] = await Promise.all([
        Promise.all(sent.map((bytes) => talk(gateway.url, bytes))),
        sent.reduce<Promise<(readonly string[])[]>>(
          async (before, bytes) => [...(await before), await strict.of(bytes)],
          Promise.resolve([]),
        ),
      ]);
      const marks = readings.flat().map((url) => /n=(\d+);/.exec(url)?.[1]);
      const seen = engine.requests.slice(seenBefore);
      for (const { url, body: received } of seen) {
        const mark = /^\/v1\/completions\?n=(\d+);/.exec(url)?.[1];
        const bytes = sent.find((text) => text.includes(`?n=${mark};`)) ?? '';
        assert.ok(mark !== undefined && marks.includes(mark), `${url} of ${JSON.stringify(bytes)}`);
        assert.equal(received.toString(), body, JSON.stringify(bytes));
      }
      assert.equal(new Set(seen.map(({ url }) => url)).size, seen.length, 'each of them once');
      assert.ok(answers.every(({ statuses }) => statuses.every((status) => status < 500)));
    });
    await fc.assert(property, { numRuns: 12, interruptAfterTimeLimit: 25_000 });
    assert.ok(engine.requests.length > 100, `${engine.requests.length} requests`);
    assert.deepEqual(engine.malformed, []);
    assert.equal(gateway.ingress[0]?.ended, false);
  });
});
