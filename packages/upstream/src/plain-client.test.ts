import assert from 'node:assert/strict';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { chunkOf, HeaderLines, lastChunk } from '@llm-gateway/http1';
import { openSockets, raw, respond, stall, startBlackHole, startEngine, stream, until } from '@llm-gateway/testing';
import type { ResponseSink, UpstreamCall, UpstreamLimits, UpstreamRequest } from './call.ts';
import { PlainClient } from './plain-client.ts';

const limits: UpstreamLimits = {
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 10_000,
  upstreamIdleTimeoutMs: 10_000,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 0,
};

/** Takes an answer, and records each thing that comes. */
class Recorder implements ResponseSink {
  readonly #done = Promise.withResolvers<void>();
  readonly done = this.#done.promise;
  readonly events: string[] = [];
  status = 0;
  headers: readonly string[] = [];
  body = '';
  end = '';
  /** Undefined: takes no framing. */
  takesFramed = false;
  framed = '';

  onInformation(): void {
    this.events.push('information');
  }

  onHead({ status, headers }: Parameters<ResponseSink['onHead']>[0]): void {
    this.status = status;
    this.headers = headers.list;
  }

  onData(chunk: Buffer): boolean {
    this.events.push(`data ${chunk.length}`);
    this.body += chunk.toString('latin1');
    return true;
  }

  onFramed(bytes: Buffer, payloadBytes: number, last: boolean): boolean {
    this.events.push(`framed ${payloadBytes}${last ? ' last' : ''}`);
    this.framed += bytes.toString('latin1');
    return true;
  }

  onEnd(): void {
    this.#end('end');
  }

  onFailure({ cause }: Parameters<ResponseSink['onFailure']>[0]): void {
    this.#end(cause);
  }

  onRepeat(): void {
    this.events.push('repeat');
  }

  #end(how: string): void {
    assert.equal(this.end, '', 'one end only');
    this.end = how;
    this.#done.resolve();
  }
}

const nothing = HeaderLines.of([]);

function call(
  client: PlainClient,
  origin: string,
  request: Partial<UpstreamRequest> = {},
  sink = new Recorder(),
): Recorder & { call: UpstreamCall } {
  const call = client.call({ origin, path: '/', method: 'POST', headers: nothing, body: null, ...request }, sink);
  return Object.assign(sink, { call });
}

/** A server of TCP: `answer` is called with each piece that comes. */
async function startServer(answer: (socket: Socket, received: string) => void, host = '127.0.0.1') {
  const sockets = new Set<Socket>();
  let accepted = 0;
  const server = createServer((socket) => {
    accepted++;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (bytes) => answer(socket, bytes.toString('latin1')));
  });
  server.listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const { port } = address;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    get connections() {
      return sockets.size;
    },
    get accepted() {
      return accepted;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** A turn of the event loop, in which a connection becomes free again. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

const ok = 'HTTP/1.1 200 OK\r\n';

describe('a request', { concurrency: true }, () => {
  it('is one piece: line, host, fields, and a small body', async () => {
    const pieces: string[] = [];
    await using server = await startServer((socket, received) => {
      pieces.push(received);
      socket.write(`${ok}content-length: 0\r\n\r\n`);
    });
    await using client = new PlainClient(limits);
    const headers = HeaderLines.ofLines('X-Odd: \xe4\r\nx-odd: b\r\n');
    await call(client, server.url, { path: '/v1/x?q=\xe4', headers, body: Buffer.from('{"a":"ä"}') }).done;
    await turn();
    await call(client, server.url, { method: 'GET' }).done;
    await turn();
    await call(client, server.url).done;
    const host = `host: 127.0.0.1:${server.port}\r\nconnection: keep-alive\r\n`;
    const body = Buffer.from('{"a":"ä"}').toString('latin1');
    assert.deepEqual(pieces, [
      `POST /v1/x?q=\xe4 HTTP/1.1\r\n${host}content-length: 10\r\nX-Odd: \xe4\r\nx-odd: b\r\n\r\n${body}`,
      `GET / HTTP/1.1\r\n${host}\r\n`,
      `POST / HTTP/1.1\r\n${host}content-length: 0\r\n\r\n`,
    ]);
    assert.equal(server.accepted, 1);
  });

  it('with a large body arrives whole', async () => {
    await using engine = await startEngine(() => respond(200, 'ok'));
    await using client = new PlainClient(limits);
    for (const bytes of [16_384, 16_385, 5_000_000]) {
      // Not a Buffer, and a part of something larger.
      const body = new Uint8Array(bytes + 10).map((_, i) => i).subarray(10);
      const seen = call(client, engine.url, { body });
      await seen.done;
      assert.equal(seen.end, 'end');
      assert.ok(engine.requests.at(-1)?.body.equals(body));
    }
  });

  it('reaches hosts of both families by name and by address', async () => {
    await using client = new PlainClient(limits);
    for (const host of ['127.0.0.1', '::1']) {
      await using server = await startServer((socket) => socket.end(`${ok}content-length: 2\r\n\r\nhi`), host);
      const named = (await lookup('localhost', { all: true })).some(({ address }) => address === host);
      for (const name of [...(named ? ['localhost'] : []), host === '::1' ? '[::1]' : host]) {
        const seen = call(client, `http://${name}:${server.port}`);
        await seen.done;
        assert.deepEqual([seen.end, seen.body], ['end', 'hi'], `${name} for ${host}`);
      }
    }
  });

  it('is refused when no address of the host has anybody who listens', async () => {
    const server = await startServer(() => {});
    await server[Symbol.asyncDispose]();
    await using client = new PlainClient(limits);
    for (const name of ['localhost', '127.0.0.1', '[::1]']) {
      const seen = call(client, `http://${name}:${server.port}`);
      await seen.done;
      assert.equal(seen.end, 'refused', name);
    }
  });
});

describe('a body', { concurrency: true }, () => {
  it('goes on in its framing where the sink takes that, and whole plain chunks came', async () => {
    const [a, b, c] = [chunkOf('a'), chunkOf('bb'), chunkOf('ccc')];
    const cases: [pieces: string[], events: string[], framed: string, body: string][] = [
      [[a, b], ['framed 1', 'framed 2'], a + b, ''],
      [[a + b + c], ['framed 6'], a + b + c, ''],
      [[a + b + lastChunk], ['framed 3 last'], a + b + lastChunk, ''],
      [[a, lastChunk], ['framed 1'], a, ''],
      [[a + b.slice(0, 4), b.slice(4), c], ['data 2', 'data 1', 'framed 3'], c, 'abb'],
      [['2;x=y\r\nbb\r\n', a], ['data 2', 'framed 1'], a, 'bb'],
      [[a, `${b}0\r\nX-Sum: 1\r\n\r\n`], ['framed 1', 'data 2'], a, 'bb'],
      [[a, `${b}0\r\n`, '\r\n'], ['framed 1', 'data 2'], a, 'bb'],
    ];
    for (const [pieces, events, framed, body] of cases) {
      const rest = pieces.join('').includes('\r\n0\r\n') || pieces.includes(lastChunk) ? [] : [lastChunk];
      await using engine = await startEngine(() =>
        raw([`${ok}transfer-encoding: chunked\r\n\r\n`, ...pieces, ...rest], { gapMs: 25 }),
      );
      await using client = new PlainClient(limits);
      const sink = new Recorder();
      sink.takesFramed = true;
      const seen = call(client, engine.url, {}, sink);
      await seen.done;
      assert.equal(seen.end, 'end');
      assert.deepEqual([seen.events, seen.framed, seen.body], [events, framed, body]);
    }
  });

  it('comes without its framing where the sink does not take it, and where there is none', async () => {
    const bodies = [
      `transfer-encoding: chunked\r\n\r\n${chunkOf('a')}${chunkOf('bb')}${lastChunk}`,
      'content-length: 3\r\n\r\nabb',
    ];
    for (const [takesFramed, body] of [
      [false, bodies[0]],
      [true, bodies[1]],
    ] as const) {
      await using server = await startServer((socket) => socket.write(`${ok}${body}`));
      await using client = new PlainClient(limits);
      const sink = new Recorder();
      sink.takesFramed = takesFramed;
      const seen = call(client, server.url, {}, sink);
      await seen.done;
      assert.deepEqual([seen.events, seen.body, seen.end], [['data 3'], 'abb', 'end']);
    }
  });

  it('is paused after the piece for which the sink asks for it, framed or not, and goes on with resume', async () => {
    const piece = 'x'.repeat(10_000);
    for (const takesFramed of [false, true]) {
      await using server = await startServer((socket) => {
        socket.write(`${ok}transfer-encoding: chunked\r\n\r\n`);
        for (let n = 0; n < 500; n++) socket.write(chunkOf(piece));
        socket.write(lastChunk);
      });
      await using client = new PlainClient({ ...limits, upstreamIdleTimeoutMs: 200 });
      const sink = new Recorder();
      sink.takesFramed = takesFramed;
      let paused = false;
      let bytes = 0;
      let pieces = 0;
      const take = (length: number) => {
        assert.equal(paused, false);
        bytes += length;
        paused = ++pieces % 10 === 1;
        // Longer than the idle timeout the first time: a pause is not the server's silence.
        if (paused)
          setTimeout(
            () => {
              paused = false;
              seen.call.resume();
            },
            pieces === 1 ? 500 : 5,
          );
        return !paused;
      };
      sink.onData = ({ length }) => take(length);
      sink.onFramed = (_bytes, length) => take(length);
      const seen = call(client, server.url, {}, sink);
      await seen.done;
      assert.deepEqual([seen.end, bytes], ['end', 500 * piece.length]);
    }
  });

  it('is that of its own call alone, of many at once', async () => {
    await using engine = await startEngine(({ url }) => stream(new Array(20).fill(url.repeat(100))));
    await using client = new PlainClient(limits);
    for (let round = 0; round < 3; round++) {
      const calls = Array.from({ length: 50 }, (_, n) => ({
        path: `/n${n}x`,
        seen: call(client, engine.url, { path: `/n${n}x` }),
      }));
      for (const { path, seen } of calls) assert.equal(await bodyOf(seen), path.repeat(2000));
    }
  });
});

describe('a connection', () => {
  const endings: Record<string, string> = {
    'an answer with bytes behind it': `${ok}content-length: 1\r\n\r\nxy`,
    'two answers': `${ok}content-length: 1\r\n\r\nx${ok}content-length: 1\r\n\r\ny`,
    'two answers of chunks': `${ok}transfer-encoding: chunked\r\n\r\n${chunkOf('x')}${lastChunk}${ok}content-length: 1\r\n\r\ny`,
    'an answer that closes it': `${ok}connection: close\r\ncontent-length: 1\r\n\r\nx`,
    'an answer of HTTP/1.0': 'HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx',
    'an answer that is kept for no time': `${ok}keep-alive: timeout=1\r\ncontent-length: 1\r\n\r\nx`,
  };
  for (const [what, answer] of Object.entries(endings)) {
    it(`that carried ${what} is closed`, async () => {
      await using server = await startServer((socket) => socket.write(answer));
      await using client = new PlainClient(limits);
      for (let n = 1; n <= 3; n++) {
        const seen = call(client, server.url);
        await seen.done;
        assert.deepEqual([seen.end, seen.body], ['end', 'x']);
        await until(() => server.connections === 0);
        assert.equal(server.accepted, n);
      }
    });
  }

  it('on which a second answer comes late, or while it is idle, poisons no other call', async () => {
    for (const lateMs of [0, 1, 10]) {
      await using server = await startServer((socket, received) => {
        const [, name = ''] = /^POST \/(\w+)/.exec(received) ?? [];
        socket.write(`${ok}content-length: ${name.length}\r\n\r\n${name}`);
        const late = () => socket.write(`${ok}content-length: 4\r\n\r\nevil`);
        if (name !== 'first') return;
        if (lateMs === 0) setImmediate(late);
        else setTimeout(late, lateMs);
      });
      await using client = new PlainClient(limits);
      assert.equal(await bodyOf(call(client, server.url, { path: '/first' })), 'first');
      if (lateMs > 0) await until(() => server.connections === 0);
      assert.equal(await bodyOf(call(client, server.url, { path: '/second' })), 'second');
    }
  });

  it('is closed before a server that says how long it keeps one closes it, and after the keep-alive time', async () => {
    for (const [answer, keepAliveMs] of [
      ['', 200],
      ['keep-alive: timeout=2\r\n', 60_000],
    ] as const) {
      await using server = await startServer((socket) => socket.write(`${ok}${answer}content-length: 0\r\n\r\n`));
      await using client = new PlainClient({ ...limits, upstreamKeepAliveMs: keepAliveMs });
      await call(client, server.url).done;
      const freeAtMs = performance.now();
      await until(() => server.connections === 0);
      const keptMs = performance.now() - freeAtMs;
      const expectedMs = keepAliveMs === 200 ? 200 : 1000;
      assert.ok(keptMs > expectedMs - 5, `${keptMs} ms`);
    }
  });

  it('is opened only up to the limit: further calls wait, in order, and may leave', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    await using client = new PlainClient({ ...limits, upstreamMaxConnections: 2 });
    const calls = Array.from({ length: 5 }, (_, n) => call(client, engine.url, { path: `/${n}` }));
    await engine.request(1);
    calls[2]?.call.abort();
    calls[0]?.call.abort();
    const third = await engine.request(2);
    assert.equal(third.url, '/3');
    engine.script = () => respond(200, 'ok');
    calls[1]?.call.abort();
    await calls[4]?.done;
    assert.equal(calls[4]?.end, 'end');
    assert.equal(calls[2]?.end, '');
    assert.ok(engine.connectionCount <= 4);
  });

  it('that does not become free in time fails the call for a local reason', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    await using client = new PlainClient({ ...limits, upstreamMaxConnections: 1, upstreamConnectTimeoutMs: 1000 });
    const first = call(client, engine.url);
    await engine.request(0);
    const startedAtMs = performance.now();
    const waiting = Array.from({ length: 4096 }, () => call(client, engine.url));
    const tooMany = call(client, engine.url);
    assert.equal(tooMany.end, '', 'not before the caller has its call');
    await tooMany.done;
    assert.deepEqual([tooMany.end, waiting[0]?.end], ['local', '']);
    await Promise.all(waiting.map(({ done }) => done));
    assert.ok(performance.now() - startedAtMs >= 1000);
    assert.ok(waiting.every(({ end }) => end === 'local'));
    assert.equal(first.end, '');
  });

  it('goes to the next call that waits when its answer has ended', async () => {
    await using engine = await startEngine(() => respond(200, 'ok'));
    await using client = new PlainClient({ ...limits, upstreamMaxConnections: 3 });
    const calls = Array.from({ length: 60 }, () => call(client, engine.url));
    await Promise.all(calls.map(({ done }) => done));
    assert.ok(calls.every(({ end, body }) => end === 'end' && body === 'ok'));
    assert.equal(engine.connectionCount, 3);
  });

  it('that a server closes under a request that waits in it is replaced once, and that is said', async () => {
    let requests = 0;
    await using server = await startServer((socket) => {
      requests++;
      if (requests === 1) socket.write(`${ok}content-length: 0\r\n\r\n`);
      else socket.end();
    });
    await using client = new PlainClient(limits);
    await call(client, server.url).done;
    await turn();
    const seen = call(client, server.url);
    await seen.done;
    assert.deepEqual([seen.events, seen.end, requests], [['repeat'], 'reset', 3]);
  });

  it('is given up in time while it is opened, and a call that leaves meanwhile opens none', async () => {
    await using hole = await startBlackHole();
    await using client = new PlainClient({ ...limits, upstreamConnectTimeoutMs: 300 });
    const startedAtMs = performance.now();
    const left = call(client, hole.url);
    const seen = call(client, hole.url);
    left.call.abort();
    await seen.done;
    const tookMs = performance.now() - startedAtMs;
    assert.equal(seen.end, 'connect_timeout');
    assert.ok(tookMs >= 300, `${tookMs} ms`);
    assert.equal(left.end, '');
  });

  it('is closed when a sink throws, and others go on', async () => {
    await using engine = await startEngine(() => respond(200, 'ok'));
    await using client = new PlainClient(limits);
    const sink = new Recorder();
    sink.onData = () => {
      throw new Error('a fault in the sink');
    };
    const [broken, other] = [call(client, engine.url, {}, sink), call(client, engine.url)];
    await Promise.all([broken.done, other.done]);
    assert.deepEqual([broken.end, other.end], ['protocol', 'end']);
  });
});

describe('calls that are given up', () => {
  it('are closed in that turn: 1,000 silent streams', async () => {
    await using server = await startServer((socket) =>
      socket.write(`${ok}transfer-encoding: chunked\r\n\r\n${chunkOf('x')}`),
    );
    await using client = new PlainClient(limits);
    const calls = Array.from({ length: 1000 }, () => call(client, server.url));
    await until(() => calls.every(({ body }) => body === 'x'));
    assert.equal(server.connections, 1000);
    for (const { call: running } of calls) running.abort();
    await turn();
    const open = openSockets(process.pid, { port: server.port });
    assert.deepEqual(
      open.filter(({ remotePort, state }) => remotePort === server.port && state === 'established'),
      [],
    );
    await until(() => server.connections === 0);
    assert.ok(calls.every(({ end }) => end === ''));
  });

  it('receive nothing more, also when that happens within a piece that comes', async () => {
    const answers = [
      `HTTP/1.1 102 Processing\r\n\r\n${ok}content-length: 2\r\n\r\nhi`,
      `${ok}transfer-encoding: chunked\r\n\r\n${chunkOf('hi')}${lastChunk}`,
    ];
    for (const answer of answers) {
      for (const at of ['onInformation', 'onHead', 'onData'] as const) {
        await using server = await startServer((socket) => socket.write(answer));
        await using client = new PlainClient(limits);
        const sink = new Recorder();
        const seen: string[] = [];
        for (const event of ['onInformation', 'onHead', 'onData', 'onEnd', 'onFailure'] as const) {
          sink[event] = () => {
            seen.push(event);
            if (event === at) running.call.abort();
            return true;
          };
        }
        const running = call(client, server.url, {}, sink);
        await until(() => (server.accepted === 1 && server.connections === 0) || seen.includes('onEnd'));
        assert.equal(seen.at(-1), answer.includes('102') || at !== 'onInformation' ? at : 'onEnd');
      }
    }
  });
});

describe('a client', () => {
  it('has no timer and no pool when all its connections are closed', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    await using server = await startServer((socket) =>
      socket.write(`${ok}connection: close\r\ncontent-length: 0\r\n\r\n`),
    );
    await using client = new PlainClient(limits);
    const before = timers();
    const seen = call(client, server.url);
    await seen.done;
    await until(() => server.connections === 0);
    assert.equal(timers(), before);
  });

  it('fails the calls under way when it is closed', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    const client = new PlainClient({ ...limits, upstreamMaxConnections: 1 });
    const calls = [call(client, engine.url), call(client, engine.url)];
    await engine.request(0);
    await client[Symbol.asyncDispose]();
    await Promise.all(calls.map(({ done }) => done));
    await until(() => engine.connections === 0);
  });
});

async function bodyOf(seen: Recorder): Promise<string> {
  await seen.done;
  assert.equal(seen.end, 'end');
  return seen.body;
}
