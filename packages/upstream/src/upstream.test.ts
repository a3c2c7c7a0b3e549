import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import {
  cut,
  type Engine,
  freePort,
  openSockets,
  raw,
  respond,
  type Script,
  stall,
  startBlackHole,
  startEngine,
  stream,
  until,
} from '@llm-gateway/testing';
import type { UpstreamClient } from './call.ts';
import { type FailureCause, readWhole, type UpstreamLimits, type UpstreamRequest } from './index.ts';
import { PlainClient } from './plain-client.ts';
import { UndiciClient } from './undici-client.ts';

const limits: UpstreamLimits = {
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 10_000,
  upstreamIdleTimeoutMs: 10_000,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 0,
};

interface Seen {
  status: number | undefined;
  headers: readonly string[];
  chunks: Buffer[];
  body: () => string;
  end: 'end' | FailureCause | undefined;
  done: Promise<void>;
  abort: () => void;
  resume: () => void;
}

function call(
  upstream: UpstreamClient,
  origin: string,
  options: { pauseAfter?: number; body?: string; once?: boolean } = {},
): Seen {
  const { promise, resolve } = Promise.withResolvers<void>();
  const seen: Seen = {
    status: undefined,
    headers: [],
    chunks: [],
    body: () => Buffer.concat(seen.chunks).toString(),
    end: undefined,
    done: promise,
    abort: () => running.abort(),
    resume: () => running.resume(),
  };
  const running = upstream.call(
    {
      origin,
      path: '/v1/x?q=1',
      method: 'POST',
      headers: HeaderLines.of(['X-Odd', 'a', 'x-odd', 'b']),
      body: Buffer.from(options.body ?? '{}'),
      once: options.once ?? false,
    },
    {
      onHead({ status, headers }) {
        seen.status = status;
        seen.headers = headers.list;
      },
      onData(chunk) {
        seen.chunks.push(Buffer.from(chunk));
        return seen.chunks.length !== options.pauseAfter;
      },
      onEnd() {
        assert.equal(seen.end, undefined, 'one end only');
        seen.end = 'end';
        resolve();
      },
      onFailure({ cause, error }) {
        assert.equal(seen.end, undefined, 'one end only');
        assert.ok(!/\d+\.\d+\.\d+\.\d+|localhost/.test(error.message), 'no address in the message');
        seen.end = cause;
        resolve();
      },
    },
  );
  return seen;
}

for (const [kind, Client] of [
  ['plain', PlainClient],
  ['undici', UndiciClient],
] as const) {
  describe(kind, () => {
    async function withEngine(
      script: Script,
      work: (upstream: UpstreamClient, engine: Engine) => Promise<void>,
      changes: Partial<UpstreamLimits> = {},
    ): Promise<void> {
      await using engine = await startEngine(script);
      await using upstream = new Client({ ...limits, ...changes });
      await work(upstream, engine);
    }

    describe('a call', () => {
      it('sends method, path, query, headers and body as they are, and gives the answer as it comes', async () => {
        const pieces = ['data: ä', '\r\n', '\r\n: comment\n\n', 'data: [DONE]\n\n'];
        await withEngine(
          () => stream(pieces, { gapMs: 20, headers: { 'x-answer': 'yes', connection: 'x-hop', 'x-hop': 'no' } }),
          async (upstream, engine) => {
            const seen = call(upstream, engine.url, { body: '{"n": 9007199254740993}' });
            await seen.done;
            assert.equal(seen.end, 'end');
            assert.equal(seen.status, 200);
            assert.equal(seen.body(), pieces.join(''));
            assert.equal(seen.chunks.length, pieces.length, 'each chunk as it was made');
            const names = seen.headers.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase());
            assert.ok(names.includes('x-answer'));
            for (const hop of ['connection', 'x-hop', 'transfer-encoding', 'keep-alive'])
              assert.ok(!names.includes(hop), hop);
            const [request] = engine.requests;
            assert.equal(request?.method, 'POST');
            assert.equal(request?.url, '/v1/x?q=1');
            assert.equal(request?.body.toString(), '{"n": 9007199254740993}');
            assert.deepEqual(
              request?.rawHeaders.filter((header) => /^(x-odd|a|b)$/i.test(header)),
              ['X-Odd', 'a', 'x-odd', 'b'],
            );
          },
        );
      });

      it('tells informational answers apart from the head that follows them', async () => {
        const informations: (readonly string[])[] = [];
        await withEngine(
          () => (exchange) => {
            exchange.response.writeInformation(102, ['X-Progress', '1']);
            exchange.response.writeInformation(102, ['X-Progress', '2']);
            return respond(200, 'done')(exchange);
          },
          async (upstream, engine) => {
            const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
            let status: number | undefined;
            upstream.call(
              { origin: engine.url, path: '/', method: 'POST', headers: HeaderLines.of([]), body: null },
              {
                onInformation: (headers) => informations.push(headers.list),
                onHead: (head) => {
                  status = head.status;
                },
                onData: () => true,
                onEnd: () => resolve(status),
                onFailure: ({ error }) => reject(error),
              },
            );
            assert.equal(await promise, 200);
          },
        );
        assert.deepEqual(informations, [
          ['X-Progress', '1'],
          ['X-Progress', '2'],
        ]);
      });

      it('pauses when the sink asks for it, and goes on when told', async () => {
        const piece = 'x'.repeat(65_536);
        await withEngine(
          () => stream(Array.from({ length: 200 }, () => piece)),
          async (upstream, engine) => {
            const seen = call(upstream, engine.url, { pauseAfter: 1 });
            await until(() => seen.chunks.length === 1);
            await new Promise((resolve) => setTimeout(resolve, 100));
            assert.equal(seen.chunks.length, 1);
            seen.resume();
            await seen.done;
            assert.equal(seen.end, 'end');
            assert.equal(seen.body().length, 200 * piece.length);
          },
        );
      });

      const failures: [string, Script, FailureCause][] = [
        ['closed before the head', () => cut('before-head'), 'reset'],
        ['reset before the head', () => cut('before-head', { how: 'reset' }), 'reset'],
        ['cut in a chunked body', () => cut({ afterBytes: 5 }, { body: 'data: x\n\n' }), 'truncated'],
        [
          'cut in a body with a length',
          () => cut({ afterBytes: 5 }, { body: '0123456789', headers: { 'content-length': '10' } }),
          'truncated',
        ],
        ['reset in the body', () => cut({ afterBytes: 5 }, { body: '0123456789', how: 'reset' }), 'truncated'],
        ['not HTTP at all', () => raw('SSH-2.0-OpenSSH\r\n'), 'protocol'],
        [
          'a broken chunk',
          () => raw('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n'),
          'truncated',
        ],
      ];
      for (const [what, script, cause] of failures) {
        it(`tells ${cause} for an answer that is ${what}`, async () => {
          await withEngine(script, async (upstream, engine) => {
            const seen = call(upstream, engine.url);
            await seen.done;
            assert.equal(seen.end, cause);
          });
        });
      }

      const whole: [string, Script, string][] = [
        ['only the end of the connection ends', () => raw('HTTP/1.1 200 OK\r\n\r\nhello'), 'hello'],
        ['a server of HTTP/1.0 sends', () => raw('HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nhello'), 'hello'],
        ['closes its connection', () => raw('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello'), 'hello'],
        ['has nothing in it', () => raw('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'), ''],
        ['is cut after [DONE]', () => cut({ afterBytes: 14 }, { body: 'data: [DONE]\n\n' }), 'data: [DONE]\n\n'],
        [
          'is reset after [DONE]',
          () => cut({ afterBytes: 14 }, { body: 'data: [DONE]\n\n', how: 'reset' }),
          'data: [DONE]\n\n',
        ],
      ];
      for (const [what, script, body] of whole) {
        it(`ends when it is one that ${what}`, async () => {
          await withEngine(script, async (upstream, engine) => {
            const seen = call(upstream, engine.url);
            await seen.done;
            assert.deepEqual([seen.end, seen.body()], ['end', body]);
          });
        });
      }

      it('ends when it is silent after [DONE] for longer than it may be', async () => {
        await withEngine(
          () => stall({ afterBytes: 14 }, { body: 'data: [DONE]\n\n' }),
          async (upstream, engine) => {
            const seen = call(upstream, engine.url);
            await seen.done;
            assert.equal(seen.end, 'end');
          },
          { upstreamIdleTimeoutMs: 200 },
        );
      });

      it('is not waited for longer because informational answers come', async () => {
        const more = new Array(200).fill('HTTP/1.1 102 Processing\r\n\r\n');
        await withEngine(
          () => raw(more, { gapMs: 50, ending: 'stall' }),
          async (upstream, engine) => {
            const startedAtMs = performance.now();
            const seen = call(upstream, engine.url);
            await seen.done;
            const tookMs = performance.now() - startedAtMs;
            assert.equal(seen.end, 'headers_timeout');
            assert.ok(tookMs >= 400, `${tookMs} ms`);
            await until(() => engine.connections === 0);
          },
          { upstreamHeadersTimeoutMs: 400 },
        );
      });

      it('tells connect when nobody listens', async () => {
        await using upstream = new Client(limits);
        const seen = call(upstream, `http://127.0.0.1:${await freePort()}`);
        await seen.done;
        assert.equal(seen.end, 'refused');
      });

      it('tells connect_timeout when the connection hangs', async () => {
        await using hole = await startBlackHole();
        await using upstream = new Client({ ...limits, upstreamConnectTimeoutMs: 200 });
        const seen = call(upstream, hole.url);
        await seen.done;
        assert.equal(seen.end, 'connect_timeout');
      });

      it('tells headers_timeout and idle_timeout when the engine falls silent', async () => {
        const changes = { upstreamHeadersTimeoutMs: 300, upstreamIdleTimeoutMs: 300 };
        for (const [script, cause] of [
          [stall('before-head'), 'headers_timeout'],
          [stall({ afterBytes: 4 }, { body: 'data' }), 'idle_timeout'],
        ] as const) {
          await withEngine(
            () => script,
            async (upstream, engine) => {
              const seen = call(upstream, engine.url);
              await seen.done;
              assert.equal(seen.end, cause);
            },
            changes,
          );
        }
      });

      it('hears nothing more after an abort, and the engine sees the connection close', async () => {
        for (const script of [stall('before-head'), stall('after-head'), stall({ afterBytes: 4 }, { body: 'data' })]) {
          await withEngine(
            () => script,
            async (upstream, engine) => {
              const seen = call(upstream, engine.url);
              const request = await engine.request(0);
              await new Promise((resolve) => setTimeout(resolve, 20));
              seen.abort();
              await until(() => engine.connections === 0);
              assert.ok(request.abandoned);
              assert.equal(seen.end, undefined);
            },
          );
        }
      });

      it('leaves no connection behind after many aborted streams, paused ones among them', async () => {
        const piece = 'x'.repeat(262_144);
        await withEngine(
          () =>
            stream(
              Array.from({ length: 1000 }, () => piece),
              { gapMs: 10 },
            ),
          async (upstream, engine) => {
            for (let round = 0; round < 10; round++) {
              const calls = Array.from({ length: 20 }, (_, i) =>
                call(upstream, engine.url, i % 2 === 0 ? { pauseAfter: 1 } : {}),
              );
              await Promise.all(calls.map((seen) => until(() => seen.chunks.length > 0)));
              for (const seen of calls) seen.abort();
            }
            await until(() => engine.connections === 0);
            await until(
              async () =>
                (await openSockets(process.pid)).filter((socket) => socket.remotePort === engine.port).length === 0,
            );
          },
        );
      });

      it('uses a connection again', async () => {
        await withEngine(
          () => respond(200, 'ok'),
          async (upstream, engine) => {
            for (let i = 0; i < 5; i++) await call(upstream, engine.url).done;
            // undici waits a turn of the event loop before it uses a connection again, so the
            // second call may open another.
            assert.ok(engine.connectionCount <= 2);
          },
        );
      });

      it('survives engines that close idle connections at their own time', async () => {
        await using engine = await startEngine(() => respond(200, 'ok'), { keepAliveTimeoutMs: 60 });
        await using upstream = new Client(limits);
        for (let i = 0; i < 30; i++) {
          const seen = call(upstream, engine.url);
          await seen.done;
          assert.equal(seen.end, 'end');
          await new Promise((resolve) => setTimeout(resolve, 50 + i));
        }
      });

      it('writes again what a kept connection swallowed, unless it may be written only once', async () => {
        for (const once of [false, true]) {
          await using engine = await startEngine(({ index }) =>
            index === 1 ? cut('before-head') : respond(200, 'ok'),
          );
          await using upstream = new Client(limits);
          await call(upstream, engine.url, { once }).done;
          // The connection is free again in the next turn.
          await new Promise((resolve) => setImmediate(resolve));
          const seen = call(upstream, engine.url, { once });
          await seen.done;
          assert.equal(seen.end, once ? 'reset' : 'end');
          assert.equal(engine.requests.length, once ? 2 : 3);
        }
      });
    });

    describe('what has begun to be answered', () => {
      const begun = 'HTTP/1.1 200 O';
      it('is not written again when the answer breaks off in its first line, on a new connection or a kept one', async () => {
        for (const answered of [0, 1]) {
          await using engine = await startEngine(({ index }) => (index < answered ? respond(200, 'ok') : raw(begun)));
          await using upstream = new Client(limits);
          for (let i = 0; i < answered; i++) await call(upstream, engine.url).done;
          await new Promise((resolve) => setImmediate(resolve));
          const seen = call(upstream, engine.url);
          await seen.done;
          assert.notEqual(seen.end, 'end');
          assert.equal(engine.requests.length, answered + 1);
        }
      });
    });

    describe('a call that cannot be made', () => {
      const possible: UpstreamRequest = {
        origin: 'http://127.0.0.1:1',
        path: '/',
        method: 'POST',
        headers: HeaderLines.of([]),
        body: Buffer.from('{}'),
      };
      for (const [what, impossible] of Object.entries({
        'a header that is none': { headers: HeaderLines.of(['x', 'a\nb']) },
        'a path with a blank': { path: '/a b' },
        'an origin that is none': { origin: 'nowhere' },
      })) {
        it(`fails in a later turn: ${what}`, async () => {
          await using upstream = new Client(limits);
          const { promise, resolve } = Promise.withResolvers<void>();
          let returned = false;
          upstream.call(
            { ...possible, ...impossible },
            {
              onHead: () => assert.fail(),
              onData: () => assert.fail(),
              onEnd: () => assert.fail(),
              onFailure() {
                assert.ok(returned, 'the caller holds its call by now');
                resolve();
              },
            },
          );
          returned = true;
          await promise;
        });
      }

      it('fails in a later turn when the upstreams are closed already', async () => {
        const upstream = new Client(limits);
        await upstream[Symbol.asyncDispose]();
        const seen = call(upstream, 'http://127.0.0.1:1');
        assert.equal(seen.end, undefined);
        await seen.done;
        assert.equal(seen.end, 'connect');
      });
    });

    describe('readWhole', () => {
      const request = (engine: Engine) => ({
        origin: engine.url,
        path: '/',
        method: 'GET',
        headers: HeaderLines.of([]),
        body: null,
      });

      it('gives the whole answer', async () => {
        await withEngine(
          () => respond(201, 'whole'),
          async (upstream, engine) => {
            const answer = await readWhole(upstream, request(engine), {
              maxBytes: 100,
              signal: new AbortController().signal,
            });
            assert.equal(answer.status, 201);
            assert.equal(answer.body.toString(), 'whole');
          },
        );
      });

      it('gives up on an answer that is too large, on a failure, and when told', async () => {
        await withEngine(
          () => respond(200, 'x'.repeat(101)),
          async (upstream, engine) => {
            const limit = { maxBytes: 100, signal: new AbortController().signal };
            await assert.rejects(readWhole(upstream, request(engine), limit), { code: 'upstream_failed' });
          },
        );
        await withEngine(
          () => cut('before-head'),
          async (upstream, engine) => {
            const limit = { maxBytes: 100, signal: new AbortController().signal };
            await assert.rejects(readWhole(upstream, request(engine), limit), { code: 'upstream_failed' });
          },
        );
        await withEngine(
          () => stall('before-head'),
          async (upstream, engine) => {
            const controller = new AbortController();
            const whole = readWhole(upstream, request(engine), { maxBytes: 100, signal: controller.signal });
            await engine.request(0);
            controller.abort();
            await assert.rejects(whole, { code: 'client_closed' });
            await until(() => engine.connections === 0);
          },
        );
      });
    });
  });
}
