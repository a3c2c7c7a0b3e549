import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import { until } from '@llm-gateway/testing';
import { ClientScene } from '../exchange/client-scene.ts';
import type { Exchange } from '../exchange/exchange.ts';

const none = HeaderLines.of([]);
const events = HeaderLines.of(['content-type', 'text/event-stream']);

/**
 * All that a client receives for one request until its connection ends, and whether it ended with a
 * reset.
 */
async function receive(
  serve: (exchange: Exchange) => void,
  requestLine = 'POST /v1/chat/completions HTTP/1.1',
): Promise<{ text: string; reset: boolean; exchange: Exchange | undefined }> {
  await using scene = await ClientScene.start(serve);
  const socket = connect(scene.port, '127.0.0.1');
  let text = '';
  let reset = false;
  let closed = false;
  socket.setEncoding('latin1').on('data', (data: string) => {
    text += data;
  });
  socket.on('error', () => {
    reset = true;
  });
  socket.on('close', () => {
    closed = true;
  });
  socket.write(`${requestLine}\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
  await until(() => closed);
  return { text, reset, exchange: scene.exchanges[0] };
}

function bodyOf(text: string): string {
  return text.slice(text.indexOf('\r\n\r\n') + 4);
}

describe('an answer', { timeout: 60_000 }, () => {
  it('frames what has no length, and passes on what has one', async () => {
    const chunked = await receive(({ client }) => {
      client.prepare(200, none, events);
      client.write(Buffer.from('a'), () => {});
      client.write(Buffer.from('bc'), () => {});
      client.end();
    });
    assert.equal(bodyOf(chunked.text), '1\r\na\r\n2\r\nbc\r\n0\r\n\r\n');
    const plain = await receive(({ client }) => {
      client.prepare(200, none, HeaderLines.of(['Content-Length', '3']));
      client.write(Buffer.from('abc'), () => {});
      client.end();
    });
    assert.equal(bodyOf(plain.text), 'abc');
    assert.doesNotMatch(plain.text, /transfer-encoding/);
  });

  it('passes on chunks in the framing that they came in', async () => {
    const { text, exchange } = await receive(({ client }) => {
      client.prepare(200, none, events);
      assert.equal(client.takesFramed, true);
      client.writeFramed(Buffer.from('2\r\nab\r\n1\r\nc\r\n'), { payloadBytes: 3, last: false }, () => {});
      client.writeFramed(Buffer.from('1\r\nd\r\n0\r\n\r\n'), { payloadBytes: 1, last: true }, () => {});
      client.end();
    });
    assert.equal(bodyOf(text), '2\r\nab\r\n1\r\nc\r\n1\r\nd\r\n0\r\n\r\n');
    assert.equal(exchange?.client.bodyBytes, 4);
    const plain = await receive(({ client }) => {
      client.prepare(200, none, HeaderLines.of(['content-length', '0']));
      assert.equal(client.takesFramed, false);
      client.end();
    });
    assert.equal(bodyOf(plain.text), '');
  });

  it('knows from chunks in their framing whether an event was left open', async () => {
    for (const [chunks, separator] of [
      ['9\r\ndata: 1\n\n\r\n', ''],
      ['8\r\ndata: 1\n\r\n', '\n\n'],
      ['8\r\ndata: 1x\r\n1\r\n\n\r\n', '\n\n'],
    ] as const) {
      const { text } = await receive(({ client }) => {
        client.prepare(200, none, events);
        client.writeFramed(Buffer.from(chunks), { payloadBytes: 9, last: false }, () => {});
        client.breakOff('upstream_failed', 'it broke');
      });
      const rest = bodyOf(text).slice(chunks.length);
      assert.ok(rest.slice(rest.indexOf('\r\n') + 2).startsWith(`${separator}data: {"error"`), JSON.stringify(rest));
    }
  });

  it('that breaks within a line is cut there: clients must not parse half of it', async () => {
    const half = 'data: {"choices":[{"del';
    for (const write of [
      ({ client }: Exchange) => client.write(Buffer.from(half), () => {}),
      ({ client }: Exchange) =>
        client.writeFramed(Buffer.from(`17\r\n${half}\r\n`), { payloadBytes: half.length, last: false }, () => {}),
      ({ client }: Exchange) => {
        client.writeFramed(Buffer.from(`17\r\n${half}\r\n`), { payloadBytes: half.length, last: false }, () => {});
        client.writeFramed(Buffer.from('1\r\nx\r\n'), { payloadBytes: 1, last: false }, () => {});
      },
    ]) {
      const { text } = await receive((exchange) => {
        exchange.client.prepare(200, none, events);
        write(exchange);
        exchange.client.breakOff('upstream_failed', 'it broke');
      });
      assert.match(bodyOf(text), /^17\r\ndata: \{"choices":\[\{"del\r\n(?:1\r\nx\r\n)?$/);
    }
  });

  it('is committed with its first byte: until then another one may take its place', async () => {
    const { text, exchange } = await receive(({ client }) => {
      client.prepare(200, none, events);
      assert.equal(client.committed, false);
      client.prepare(201, HeaderLines.of(['x-own', '1']), none);
      client.end();
      assert.equal(client.committed, true);
    });
    assert.match(text, /^HTTP\/1\.1 201 Created\r\nx-own: 1\r\n/);
    let isOver = false;
    exchange?.client.whenOver(() => {
      isOver = true;
    });
    assert.ok(isOver);
  });

  it('has no body for HEAD, 204 and 304, and keeps its length', async () => {
    const head = await receive(
      ({ client }) => client.answer(200, none, Buffer.from('abc')),
      'HEAD /v1/models HTTP/1.1',
    );
    assert.match(head.text, /content-length: 3\r\n/);
    assert.equal(bodyOf(head.text), '');
    for (const status of [204, 304]) {
      const { text } = await receive(({ client }) => client.answer(status, none, Buffer.alloc(0)));
      assert.equal(bodyOf(text), '');
      assert.doesNotMatch(text, /content-length|transfer-encoding/);
    }
  });

  it('has no length when it has no content, whatever the engine says', async () => {
    const { text } = await receive(({ client }) => {
      client.prepare(204, none, HeaderLines.of(['content-length', '5', 'x-kept', '1']));
      client.end();
    });
    assert.doesNotMatch(text, /content-length/);
    assert.match(text, /x-kept: 1/);
  });

  it('of 205 has a length of 0, whatever the engine sends', async () => {
    for (const headers of [none, HeaderLines.of(['Content-Length', '5'])]) {
      const { text } = await receive(({ client }) => {
        client.prepare(205, none, headers);
        client.write(Buffer.from('hello'), () => {});
        client.end();
      });
      assert.match(text, /^HTTP\/1\.1 205 Reset Content\r\n[\s\S]*content-length: 0\r\n/);
      assert.equal(text.match(/content-length/gi)?.length, 1);
      assert.equal(bodyOf(text), '');
    }
  });

  it('that breaks ends with an event in the shape of the path where its framing lets it', async () => {
    const broken = ({ client }: Exchange) => {
      client.prepare(200, none, events);
      client.write(Buffer.from('data: 1\n'), () => {});
      client.breakOff('upstream_failed', 'it broke');
    };
    const openai = await receive(broken);
    assert.match(openai.text, /\n\ndata: \{"error":\{"message":"it broke"/);
    assert.doesNotMatch(openai.text, /\r\n0\r\n\r\n$/);
    const anthropic = await receive(broken, 'POST /v1/messages HTTP/1.1');
    assert.match(anthropic.text, /\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error"/);
    const old = await receive(broken, 'POST /v1/chat/completions HTTP/1.0');
    assert.match(old.text, /data: \{"error"/);
    assert.equal(old.reset, true);
  });

  it('that breaks within a promised length says nothing more', async () => {
    const { text } = await receive(({ client }) => {
      client.prepare(200, none, HeaderLines.of(['content-type', 'text/event-stream', 'content-length', '100']));
      client.write(Buffer.from('data: 1\n\n'), () => {});
      client.breakOff('upstream_failed', 'it broke');
    });
    assert.equal(bodyOf(text), 'data: 1\n\n');
  });

  it('of a large chunk is what it was', async () => {
    const large = 'x'.repeat(300_000);
    const { text } = await receive(({ client }) => {
      client.prepare(200, none, none);
      const lent = Buffer.from(large);
      client.write(lent, () => {});
      // The chunk is only lent.
      lent.fill('y');
      client.end();
    });
    assert.equal(bodyOf(text), `${large.length.toString(16)}\r\n${large}\r\n0\r\n\r\n`);
  });

  it('says what an error is in the shape of the path', async () => {
    const refuse = ({ client }: Exchange) => client.refuse('no_instance', 'nobody');
    const openai = await receive(refuse);
    assert.equal(JSON.parse(bodyOf(openai.text)).error.code, 'no_instance');
    const anthropic = await receive(refuse, 'POST /v1/messages/count_tokens HTTP/1.1');
    assert.match(anthropic.text, /^HTTP\/1\.1 529 /);
    const [, id] = /\r\nrequest-id: (\S+)\r\n/.exec(anthropic.text) ?? [];
    assert.deepEqual(JSON.parse(bodyOf(anthropic.text)), {
      type: 'error',
      error: { type: 'overloaded_error', message: 'nobody' },
      request_id: id,
    });
    const elsewhere = await receive(refuse, 'GET /v1/models HTTP/1.1\r\nanthropic-version: 2023-06-01');
    assert.equal(JSON.parse(bodyOf(elsewhere.text)).type, 'error');
  });
});
