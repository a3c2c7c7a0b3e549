import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { type Engine, respond, type Service, startEngine, startService, stream } from '@llm-gateway/testing';
import { talk } from '../raw-client.ts';

/** What a client sends, as its kind sends it: written by ourselves after its form. */
interface Pattern {
  readonly client: string;
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Left out: no body. */
  readonly body?: object;
  readonly encoding?: 'zstd';
  /** What the client must be answered. */
  readonly status: number;
  /** Where the engine must see it; left out: it must not. */
  readonly reaches?: string;
}

const folder = join(import.meta.dirname, 'patterns');
const patterns = readdirSync(folder).map((file) => {
  const pattern: Pattern = JSON.parse(readFileSync(join(folder, file), 'utf8'));
  return { ...pattern, name: file.replace(/\.json$/, '') };
});

const tokens = { input_tokens: 7 };

describe('what agents send', { timeout: 60_000 }, () => {
  let engine: Engine;
  let gateway: Service;
  before(async () => {
    engine = await startEngine((request) => {
      if (request.url.includes('count_tokens')) return respond(200, tokens);
      return request.body.includes('"stream":true')
        ? stream(['event: message_stop\ndata: {"type":"message_stop"}\n\n'])
        : respond(200, { object: 'answer' });
    });
    gateway = await startService('standalone', ['--llm-backend-endpoints', engine.address]);
  });
  after(async () => {
    await gateway.stop();
    await engine[Symbol.asyncDispose]();
  });

  for (const { name, client, method, target, headers, body, encoding, status, reaches } of patterns) {
    it(`${client}: ${name}`, async () => {
      const seen = engine.requests.length;
      const json = Buffer.from(body === undefined ? '' : JSON.stringify(body));
      const bytes = encoding === undefined ? json : zstdCompressSync(json);
      const coding = encoding === undefined ? {} : { 'content-encoding': encoding };
      const length = body === undefined ? {} : { 'content-length': String(bytes.length) };
      const fields = Object.entries({ host: 'gateway', connection: 'close', ...headers, ...coding, ...length });
      const head = [`${method} ${target} HTTP/1.1`, ...fields.map(([field, value]) => `${field}: ${value}`)];
      const { statuses } = await talk(gateway.url, `${head.join('\r\n')}\r\n\r\n${bytes.toString('latin1')}`);
      assert.deepEqual(statuses, [status]);
      const request = engine.requests[seen];
      assert.equal(request?.url, reaches);
      if (request === undefined) return;
      assert.ok(request.body.equals(json), 'the engine sees the body as it was, decoded');
      assert.equal(request.headers['content-encoding'], undefined);
      for (const field of ['anthropic-version', 'anthropic-beta', 'user-agent']) {
        assert.equal(request.headers[field], headers[field], field);
      }
    });
  }
});
