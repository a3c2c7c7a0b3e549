import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Engine, respond, type Service, startEngine, startService, stream } from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { chat } from './gateway.ts';

const quiet = ['--drain-delay-ms', '0', '--mirror-config', '/nonexistent'];
const origin = 'https://app.test';

describe('the page of another origin', { timeout: 60_000 }, () => {
  const stack = new AsyncDisposableStack();
  let engine: Engine;
  let gateway: Service;
  before(async () => {
    // As vLLM does by default, and more.
    const headers = {
      'access-control-allow-origin': 'https://the-engine.test',
      'access-control-allow-credentials': 'true',
    };
    engine = stack.use(
      await startEngine(({ url, body }) => {
        if (url === '/v1/models') return respond(200, { data: [{ id: 'm' }] }, { headers });
        return body.includes('"stream":true')
          ? stream(['data: [DONE]\n\n'], { headers })
          : respond(200, '{}', { headers });
      }),
    );
    const flags = [
      '--llm-backend-endpoints',
      engine.address,
      '--cors-allow-origin',
      `${origin},http://localhost:3000`,
      ...quiet,
    ];
    gateway = stack.use(await startService('standalone', flags));
  });
  after(() => stack.disposeAsync());

  const options = (path: string, from = origin, base = gateway.url) =>
    fetch(base + path, {
      method: 'OPTIONS',
      headers: {
        origin: from,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type,x-stainless-lang',
      },
    });
  const allowed = (headers: Headers) => headers.get('access-control-allow-origin');

  it('is told what it may send, before any key is asked for, and no engine is', async () => {
    const seen = engine.requests.length;
    for (const path of ['/v1/chat/completions', '/v1/models', '/v1/messages', '/elsewhere']) {
      const answer = await options(path);
      assert.equal(answer.status, 204);
      assert.equal(allowed(answer.headers), origin);
      assert.equal(answer.headers.get('access-control-allow-headers'), 'authorization,content-type,x-stainless-lang');
      assert.match(answer.headers.get('access-control-allow-methods') ?? '', /POST/);
      assert.equal(answer.headers.get('access-control-max-age'), '7200');
      assert.match(answer.headers.get('vary') ?? '', /Origin/);
    }
    const other = await options('/v1/models', 'https://other.test');
    assert.deepEqual(
      [other.status, allowed(other.headers), other.headers.get('access-control-allow-methods')],
      [204, null, null],
    );
    assert.equal(engine.requests.length, seen);
  });

  it('may read answers and errors, by the word of the gateway and not of the engine', async () => {
    const cases: readonly [what: string, question: Parameters<typeof ask>[1], status: number][] = [
      ['an answer', {}, 200],
      ['a stream', { stream: true }, 200],
      ['an error of the gateway', { body: '{' }, 400],
      ['a path that is not served', { path: '/elsewhere' }, 404],
    ];
    for (const [what, question, status] of cases) {
      const mine = await ask(gateway.url, { ...question, headers: { origin } });
      assert.deepEqual([mine.status, allowed(mine.headers)], [status, origin], what);
      assert.equal(mine.headers.get('access-control-expose-headers'), '*');
      assert.equal(mine.headers.get('access-control-allow-credentials'), null);
      assert.match(mine.headers.get('vary') ?? '', /Origin/);
      const others = await ask(gateway.url, { ...question, headers: { origin: 'https://other.test' } });
      assert.deepEqual([others.status, allowed(others.headers)], [status, null], what);
    }
    const models = await fetch(`${gateway.url}/v1/models`, { headers: { origin } });
    assert.equal(allowed(models.headers), origin);
  });

  it('is any page with *, and none without the flag', async () => {
    await using any = await startService('standalone', [
      '--llm-backend-endpoints',
      engine.address,
      '--cors-allow-origin=*',
      ...quiet,
    ]);
    assert.equal(allowed((await options('/v1/models', 'null', any.url)).headers), '*');
    const bad = await fetch(`${any.url}/v1/chat/completions`, { method: 'POST', body: '{', headers: { origin } });
    assert.deepEqual([bad.status, allowed(bad.headers)], [400, '*']);

    await using off = await startService('standalone', ['--llm-backend-endpoints', engine.address, ...quiet]);
    assert.equal((await options('/v1/models', origin, off.url)).status, 405);
    const body = await ask(off.url, { body: chat(), headers: { origin } });
    assert.equal(allowed(body.headers), 'https://the-engine.test');
  });
});
