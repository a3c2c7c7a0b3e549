import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import {
  cut,
  type Engine,
  raw,
  refuse,
  respond,
  type Script,
  stall,
  startEngine,
  stream,
  until,
} from '@llm-gateway/testing';
import { type HoldRule, holdRules, type RelayTarget, relay, type UpstreamFailure } from './index.ts';
import { PlainClient } from './plain-client.ts';
import { UndiciClient } from './undici-client.ts';

/** A client that takes every answer below 500. */
class Client implements RelayTarget {
  readonly leaving = new AbortController();
  readonly signal = this.leaving.signal;
  text = '';
  ended = false;
  brokenBy: UpstreamFailure | undefined;
  repeats = 0;
  kept = 0;
  mostKept = 0;
  writes: string[] = [];
  readonly holdRule: HoldRule | null;

  constructor(holdRule: HoldRule | null = null) {
    this.holdRule = holdRule;
  }

  keep(bytes: number): boolean {
    this.kept += bytes;
    this.mostKept = Math.max(this.mostKept, this.kept);
    return true;
  }

  free(bytes: number): void {
    this.kept -= bytes;
  }

  get committed(): boolean {
    return this.text !== '';
  }

  accept({ status }: { status: number }): boolean {
    return status < 500;
  }

  write(chunk: Buffer): boolean {
    this.text += chunk;
    this.writes.push(chunk.toString());
    return true;
  }

  end(): void {
    this.ended = true;
  }

  breakOff(failure: UpstreamFailure): void {
    this.brokenBy = failure;
  }

  onRepeat(): void {
    this.repeats++;
  }
}

async function withEngine(
  Caller: typeof PlainClient | typeof UndiciClient,
  script: Script,
  work: (engine: Engine, call: (client: Client) => ReturnType<typeof relay>) => Promise<void>,
  idleTimeoutMs = 10_000,
): Promise<void> {
  await using engine = await startEngine(script);
  await using upstream = new Caller({
    upstreamConnectTimeoutMs: 3000,
    upstreamHeadersTimeoutMs: 10_000,
    upstreamIdleTimeoutMs: idleTimeoutMs,
    upstreamKeepAliveMs: 4000,
    upstreamMaxConnections: 0,
  });
  const request = { origin: engine.url, path: '/', method: 'POST', headers: HeaderLines.of([]), body: null };
  await work(engine, (client) => relay(upstream, request, client));
}

for (const Caller of [PlainClient, UndiciClient]) {
  describe(`a relayed call over ${Caller.name}`, { concurrency: true, timeout: 60_000 }, () => {
    it('gives the client an answer that it takes', async () => {
      await withEngine(
        Caller,
        () => stream(['a', 'b']),
        async (_engine, call) => {
          const client = new Client();
          assert.deepEqual(await call(client), { kind: 'answered', status: 200 });
          assert.deepEqual([client.text, client.ended], ['ab', true]);
        },
      );
    });

    it('keeps an answer that the client does not take', async () => {
      await withEngine(
        Caller,
        () => refuse(503, { message: 'down', retryAfter: 7 }),
        async (_engine, call) => {
          const client = new Client();
          const end = await call(client);
          assert.ok(end.kind === 'rejected');
          assert.equal(end.answer.status, 503);
          assert.match(end.answer.body.toString(), /down/);
          assert.deepEqual([client.text, client.ended], ['', false]);
        },
      );
    });

    it('keeps the body of a failed answer that only the end of the connection ends, but not of one that is cut', async () => {
      const answers = {
        '<p>down</p>': raw('HTTP/1.0 503 Down\r\ncontent-type: text/html\r\n\r\n<p>down</p>'),
        '': cut({ afterBytes: 3 }, { status: 503, body: '<p>down</p>', headers: { 'content-type': 'text/html' } }),
      };
      for (const [body, script] of Object.entries(answers)) {
        await withEngine(
          Caller,
          () => script,
          async (_engine, call) => {
            const end = await call(new Client());
            assert.ok(end.kind === 'rejected');
            assert.equal(end.answer.body.toString(), body);
            assert.equal(end.answer.headers.list.includes('text/html'), body !== '');
          },
        );
      }
    });

    it('keeps no body that drips: the idle timeout, or 5 s when that is shorter, is for all of it', async () => {
      for (const [idleTimeoutMs, limitMs] of [
        [500, 500],
        [60_000, 5000],
      ] as const) {
        await withEngine(
          Caller,
          () => stream(new Array(100).fill(' '), { status: 503, gapMs: 100, headers: { 'retry-after': '7' } }),
          async (engine, call) => {
            const startedAtMs = performance.now();
            const end = await call(new Client());
            const tookMs = performance.now() - startedAtMs;
            assert.ok(end.kind === 'rejected');
            assert.equal(end.answer.body.length, 0);
            assert.deepEqual(end.answer.headers.list.slice(0, 2), ['retry-after', '7']);
            assert.ok(tookMs >= limitMs - 5, `${tookMs} ms`);
            await until(() => engine.requests[0]?.abandoned);
          },
          idleTimeoutMs,
        );
      }
    });

    it('stops reading an answer that has become too large to be kept', async () => {
      const piece = 'x'.repeat(65_536);
      await withEngine(
        Caller,
        () => stream(new Array(100_000).fill(piece), { status: 500 }),
        async (engine, call) => {
          const end = await call(new Client());
          assert.ok(end.kind === 'rejected' && end.answer.body.length === 0);
          await until(() => engine.requests[0]?.abandoned);
        },
      );
    });

    it('breaks an answer off when the client has part of it, and only then', async () => {
      const scripts = { failed: cut('after-head'), broken: cut({ afterBytes: 1 }, { body: 'ab' }) };
      for (const [kind, script] of Object.entries(scripts)) {
        await withEngine(
          Caller,
          () => script,
          async (_engine, call) => {
            const client = new Client();
            const end = await call(client);
            assert.equal(end.kind, kind);
            assert.equal(client.brokenBy?.cause, kind === 'broken' ? 'truncated' : undefined);
            assert.equal(client.ended, false);
          },
        );
      }
    });

    it('ends when the client leaves', async () => {
      await withEngine(
        Caller,
        () => stall('before-head'),
        async (engine, call) => {
          const client = new Client();
          const ended = call(client);
          const request = await engine.request(0);
          client.leaving.abort();
          assert.deepEqual(await ended, { kind: 'cancelled' });
          assert.equal(request.answeredAt, null);
        },
      );
    });

    it('is not made for a client that has left', async () => {
      await withEngine(
        Caller,
        () => respond(200),
        async (engine, call) => {
          const client = new Client();
          client.leaving.abort();
          assert.deepEqual(await call(client), { kind: 'cancelled' });
          assert.equal((await call(new Client())).kind, 'answered');
          assert.equal(engine.connectionCount, 1, 'not even a connection');
        },
      );
    });
  });

  // Not with others at the same time: the race that is played here is over after 100 ms.
  describe(`a call over ${Caller.name} that is made again`, () => {
    it('tells when the request is written once more', async () => {
      await withEngine(
        Caller,
        ({ index }) => (index === 1 ? cut('before-head') : respond(200)),
        async (engine, call) => {
          await call(new Client());
          // The connection is free again in the next turn.
          await new Promise((resolve) => setImmediate(resolve));
          const client = new Client();
          assert.equal((await call(client)).kind, 'answered');
          assert.deepEqual([client.repeats, engine.requests.length], [1, 3]);
        },
      );
    });
  });
}

/** A client that takes whole chunks in their framing. */
class FramingClient extends Client {
  readonly takesFramed = true;
  pieces: string[] = [];

  writeFramed(bytes: Buffer, { payloadBytes, last }: { payloadBytes: number; last: boolean }): boolean {
    this.pieces.push(`${payloadBytes} ${last} ${bytes}`);
    return true;
  }
}

describe('a client that takes framing', () => {
  const chunks = (status: number) =>
    raw(`HTTP/1.1 ${status} Any\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbb\r\n0\r\n\r\n`);

  it('is given whole chunks as they came', async () => {
    await withEngine(
      PlainClient,
      () => chunks(200),
      async (_engine, call) => {
        const client = new FramingClient();
        assert.deepEqual(await call(client), { kind: 'answered', status: 200 });
        assert.deepEqual(client.pieces, ['3 true 1\r\na\r\n2\r\nbb\r\n0\r\n\r\n']);
        assert.deepEqual([client.text, client.ended], ['', true]);
      },
    );
  });

  it('is given none of an answer that is kept back, which is kept without its framing', async () => {
    await withEngine(
      PlainClient,
      () => chunks(500),
      async (_engine, call) => {
        const client = new FramingClient();
        const end = await call(client);
        assert.ok(end.kind === 'rejected');
        assert.deepEqual([end.answer.body.toString(), client.pieces], ['abb', []]);
      },
    );
  });
});

const chunkOf = (delta: object) => `data: ${JSON.stringify({ choices: [{ index: 0, delta }] })}\n\n`;
const role = chunkOf({ role: 'assistant', content: '' });
const hello = chunkOf({ content: 'Hello' });

function holding(holdMs = 60_000): Client {
  const rule = holdRules({ commitAt: 'content', commitHoldMs: holdMs }).get('/v1/chat/completions');
  assert.ok(rule);
  return new Client(rule);
}

for (const Caller of [PlainClient, UndiciClient]) {
  describe(`a stream relayed over ${Caller.name} that is held until its content`, { timeout: 60_000 }, () => {
    it('is written with its first content', async () => {
      await withEngine(
        Caller,
        () => stream([': hi\n\n', role, hello, hello], { gapMs: 20 }),
        async (_engine, call) => {
          const client = holding();
          assert.deepEqual(await call(client), { kind: 'answered', status: 200 });
          assert.deepEqual(client.writes, [`: hi\n\n${role}${hello}`, hello]);
          assert.equal(client.kept, 0);
          assert.equal(client.mostKept, `: hi\n\n${role}${hello}`.length, 'asked for before it was kept');
        },
      );
    });

    it('is written as it comes when its first piece has content', async () => {
      await withEngine(
        Caller,
        () => stream([`${role}${hello}`, hello], { gapMs: 20 }),
        async (_engine, call) => {
          const client = holding();
          await call(client);
          assert.deepEqual([client.writes, client.mostKept], [[`${role}${hello}`, hello], 0]);
        },
      );
    });

    it('has failed, and nothing of it is written, when it is cut before that', async () => {
      await withEngine(
        Caller,
        () => cut({ afterBytes: role.length }, { body: role }),
        async (_engine, call) => {
          const client = holding();
          const end = await call(client);
          assert.ok(end.kind === 'failed' && end.failure.cause === 'truncated', end.kind);
          assert.deepEqual([client.text, client.kept], ['', 0]);
        },
      );
    });

    it('is that also when the stream ends without a blank line behind the error', async () => {
      const report = (end: string) =>
        stream([role, `data: ${JSON.stringify({ error: { message: 'broken', code: 500 } })}${end}`]);
      await withEngine(
        Caller,
        () => report(''),
        async (engine, call) => {
          for (const end of ['', '\n', '\r\n']) {
            engine.script = () => report(end);
            const client = holding();
            const ended = await call(client);
            assert.ok(ended.kind === 'rejected' && ended.reported === true, JSON.stringify(end));
            assert.equal(ended.answer.status, 500);
            assert.deepEqual([client.text, client.kept, client.ended], ['', 0, false]);
          }
        },
      );
    });

    it('is the answer that its error would have been', async () => {
      const report = (code: number) =>
        stream([role, `data: ${JSON.stringify({ error: { message: 'broken', code } })}\n\n`, 'data: [DONE]\n\n'], {
          headers: { 'retry-after': '7' },
        });
      await withEngine(
        Caller,
        () => report(500),
        async (engine, call) => {
          const client = holding();
          const end = await call(client);
          assert.ok(end.kind === 'rejected' && end.reported === true);
          assert.equal(end.answer.status, 500);
          assert.equal(end.answer.headers.value('retry-after'), '7');
          assert.equal(JSON.parse(end.answer.body.toString()).error.message, 'broken');
          assert.deepEqual([client.text, client.kept, client.ended], ['', 0, false]);

          engine.script = () => report(400);
          const own = holding();
          assert.deepEqual(await call(own), { kind: 'answered', status: 400 });
          assert.equal(JSON.parse(own.text).error.code, 400);
          assert.equal(own.ended, true);
        },
      );
    });

    it('is written after its time, or with its end, though there is no content', async () => {
      await withEngine(
        Caller,
        () => stall({ afterBytes: role.length }, { body: role }),
        async (_engine, call) => {
          const client = holding(50);
          const ended = call(client);
          await until(() => client.text === role);
          assert.equal(client.kept, 0);
          client.leaving.abort();
          assert.equal((await ended).kind, 'cancelled');
        },
      );
      await withEngine(
        Caller,
        () => stream([role]),
        async (_engine, call) => {
          const client = holding();
          assert.equal((await call(client)).kind, 'answered');
          assert.deepEqual([client.text, client.ended, client.kept], [role, true, 0]);
        },
      );
    });

    it('is not begun by comments, however long they come', async () => {
      await withEngine(
        Caller,
        () => stream(new Array(10).fill(': still here\n\n'), { gapMs: 20 }),
        async (_engine, call) => {
          const client = holding(1);
          await call(client);
          assert.equal(client.writes.length, 1, 'all with the end');
        },
      );
    });

    it('gives back what it kept when its client leaves', async () => {
      await withEngine(
        Caller,
        () => stall({ afterBytes: role.length }, { body: role }),
        async (_engine, call) => {
          const client = holding();
          const ended = call(client);
          await until(() => client.kept > 0);
          client.leaving.abort();
          assert.equal((await ended).kind, 'cancelled');
          assert.equal(client.kept, 0);
        },
      );
    });
  });
}
