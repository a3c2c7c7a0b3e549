import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { until } from '@llm-gateway/testing';
import { ClaimPool, claimSurface } from './claims.ts';

async function serve(options: { maxBytes?: number; timeoutMs?: number } = {}) {
  const expired: number[] = [];
  const pool = new ClaimPool({
    maxBytes: options.maxBytes ?? 1000,
    timeoutMs: options.timeoutMs ?? 60_000,
    onExpired: (copy) => expired.push(copy),
  });
  const surface = claimSurface(pool, 'ingress-1');
  const { url } = await surface.listen({ host: '127.0.0.1', port: 0 });
  return {
    pool,
    expired,
    url,
    get: (copy: number, token?: string) =>
      fetch(`${url}/claims/${copy}`, token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
    async [Symbol.asyncDispose]() {
      await surface[Symbol.asyncDispose]();
      pool[Symbol.dispose]();
    },
  };
}

function held<T>(claim: T | null): T {
  assert.ok(claim !== null);
  return claim;
}

describe('a claim', () => {
  it('gives its body once, to the holder of its token', async () => {
    await using server = await serve();
    const body = Buffer.from([0, 255, 1, 254]);
    const token = held(server.pool.hold(1, body));

    for (const wrong of [undefined, '', 'x', `${token}x`, token.toUpperCase()]) {
      const refused = await server.get(1, wrong);
      assert.equal(refused.status, 404);
      assert.doesNotMatch(await refused.text(), new RegExp(token));
    }
    const answer = await server.get(1, token);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('x-gateway-ingress'), 'ingress-1');
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), body);
    await until(() => server.pool.heldBytes === 0);
    assert.equal((await server.get(1, token)).status, 404);
  });

  it('is not given twice to two that ask at once', async () => {
    await using server = await serve();
    const token = held(server.pool.hold(1, Buffer.alloc(900)));
    const answers = await Promise.all([1, 2, 3].map(() => server.get(1, token)));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 404, 404]);
  });

  it('is refused when the pool is full, and there is room again once a body is fetched', async () => {
    await using server = await serve({ maxBytes: 10 });
    const token = held(server.pool.hold(1, Buffer.alloc(6)));
    assert.equal(server.pool.hold(2, Buffer.alloc(5)), null);
    assert.notEqual(server.pool.hold(3, Buffer.alloc(4)), null);
    await (await server.get(1, token)).arrayBuffer();
    await until(() => server.pool.heldBytes === 4);
    assert.notEqual(server.pool.hold(4, Buffer.alloc(6)), null);
    server.pool.abandon(3);
    assert.equal(server.pool.heldBytes, 6);
  });

  it('expires when nobody fetches it, and is told then', async () => {
    await using server = await serve({ timeoutMs: 20 });
    const token = held(server.pool.hold(7, Buffer.alloc(5)));
    await until(() => server.expired.length === 1);
    assert.deepEqual(server.expired, [7]);
    assert.equal(server.pool.heldBytes, 0);
    assert.equal((await server.get(7, token)).status, 404);
  });

  it('is cut when its reader is too slow, so that its bytes are not held for ever', async () => {
    await using server = await serve({ maxBytes: 64_000_000, timeoutMs: 300 });
    const token = held(server.pool.hold(1, Buffer.alloc(50_000_000)));
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname).on('error', () => {});
    socket.write(`GET /claims/1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`);
    await until(() => server.pool.heldBytes === 0);
    assert.deepEqual(server.expired, [], 'it was fetched, if not to its end');
    socket.destroy();
  });

  it('is all there is on the internal listener', async () => {
    await using server = await serve();
    for (const path of ['/', '/claims', '/claims/', '/metrics', '/v1/models', '/claims/%', '/claims/1e0']) {
      assert.equal((await fetch(server.url + path)).status, 404, path);
    }
    assert.equal((await fetch(`${server.url}/claims/x`, { method: 'POST', body: 'x' })).status, 413);
  });
});
