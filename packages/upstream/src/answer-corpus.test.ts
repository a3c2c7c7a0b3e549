import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import type { UpstreamLimits } from './call.ts';
import { PlainClient } from './plain-client.ts';

/** An answer of the test corpus of nodejs/llhttp (MIT licence), in base64. */
interface RecordedAnswer {
  readonly name: string;
  readonly bytes: string;
  /** Why llhttp refuses it in strict mode. */
  readonly llhttpStrictError?: number;
}

const answers: readonly RecordedAnswer[] = JSON.parse(
  readFileSync(new URL('./fixtures/answers.json', import.meta.url), 'utf8'),
);

const limits: UpstreamLimits = {
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 1500,
  upstreamIdleTimeoutMs: 1500,
  upstreamKeepAliveMs: 60_000,
  upstreamMaxConnections: 0,
};

/**
 * llhttp's code for octets behind an answer that is the last one of its connection. That answer is
 * whole.
 */
const closedConnection = 5;

const nextAnswer = 'HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine';

/**
 * Answers the first request of each connection with `bytes`, in pieces of so many, and all others
 * with `nextAnswer`.
 */
async function startServer(bytes: Buffer, { pieceBytes, closes }: { pieceBytes: number; closes: boolean }) {
  const sockets = new Set<Socket>();
  let answered = false;
  const written = Promise.withResolvers<void>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', () => {
      if (answered) socket.write(nextAnswer);
      else {
        answered = true;
        void writeInPieces(socket, bytes, pieceBytes).then(() => {
          if (closes) socket.end();
          written.resolve();
        });
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return {
    url: `http://127.0.0.1:${address.port}`,
    /** The first answer is out. */
    written: written.promise,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Each piece in a turn of its own, so that the client reads it by itself. */
async function writeInPieces(socket: Socket, bytes: Buffer, pieceBytes: number): Promise<void> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    socket.write(bytes.subarray(at, at + pieceBytes));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

interface Taken {
  readonly status: number;
  readonly body: string;
  /** `end`, or the cause of the failure. */
  readonly end: string;
}

function take(client: PlainClient, origin: string, takesFramed: boolean): Promise<Taken> {
  const { promise, resolve } = Promise.withResolvers<Taken>();
  let status = 0;
  let body = '';
  let ends = 0;
  const finish = (end: string) => {
    assert.equal(++ends, 1, 'one end only');
    resolve({ status, body, end });
  };
  const request = { origin, path: '/', method: 'POST', headers: HeaderLines.of([]), body: null };
  client.call(request, {
    takesFramed,
    onHead(head) {
      assert.equal(status, 0, 'one head only');
      ({ status } = head);
    },
    onData(chunk) {
      body += chunk.toString('latin1');
      return true;
    },
    onFramed(bytes) {
      body += bytes.toString('latin1');
      return true;
    },
    onEnd: () => finish('end'),
    onFailure: ({ cause }) => finish(cause),
  });
  return promise;
}

describe('answers of the corpus', { concurrency: 2 }, () => {
  for (const closes of [false, true]) {
    for (const [how, pieceBytes, takesFramed] of [
      ['whole', 1 << 20, false],
      ['streamed', 1 << 20, true],
      ['streamed octet by octet', 1, true],
    ] as const) {
      const connections = closes ? 'closed' : 'kept';
      it(`${how}, on connections that are ${connections}, are one answer or none, and never part of the next`, async () => {
        await using client = new PlainClient(limits);
        const wrong: string[] = [];
        const check = async ({ name, bytes, llhttpStrictError }: RecordedAnswer) => {
          await using server = await startServer(Buffer.from(bytes, 'base64'), { pieceBytes, closes });
          const first = await take(client, server.url, takesFramed);
          const isRefused = llhttpStrictError !== undefined && llhttpStrictError !== closedConnection;
          if (isRefused && first.end === 'end') wrong.push(`${name}: ${llhttpStrictError}`);
          // What comes behind the first answer is here before the next request is sent.
          await server.written;
          await new Promise((resolve) => setImmediate(resolve));
          const next = await take(client, server.url, false);
          const isClean = next.status === 200 && next.body === 'mine' && next.end === 'end';
          if (!isClean) wrong.push(`${name}: the next request got ${JSON.stringify(next)}`);
        };
        await Promise.all(answers.map(check));
        assert.deepEqual(wrong, []);
      });
    }
  }
});
