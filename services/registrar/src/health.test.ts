import assert from 'node:assert/strict';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { until } from '@llm-gateway/testing';
import { isHealthy, judge, type RankHealth } from './health.ts';

function course(maxFailures: number, checks: readonly boolean[]): boolean[] {
  let health: RankHealth = null;
  return checks.map((passed) => {
    const judged = judge(health, passed, maxFailures);
    health = judged.health;
    return judged.healthy;
  });
}

test('a rank is unhealthy until its first success, and healthy after one', () => {
  assert.deepEqual(course(1, [false, false, true]), [false, false, true]);
  assert.deepEqual(course(3, [false, true, true]), [false, true, true]);
});

test('a rank becomes unhealthy with as many failures in a row as are allowed', () => {
  assert.deepEqual(course(1, [true, false, true]), [true, false, true]);
  assert.deepEqual(course(3, [true, false, false, false, true]), [true, true, true, false, true]);
  assert.deepEqual(course(2, [true, false, true, false, false]), [true, true, true, true, false]);
});

const never = new AbortController().signal;

async function serve(listener: RequestListener): Promise<AsyncDisposable & { port: number; server: Server }> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await until(() => server.listening);
  const { port } = server.address() as AddressInfo;
  return {
    port,
    server,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function check(change: { timeoutMs?: number; retries?: number; path?: string } = {}) {
  return { host: '127.0.0.1', path: '/health', timeoutMs: 2000, retries: 0, ...change };
}

test('200 at the path is healthy, anything else is not', async () => {
  await using engine = await serve((request, response) => {
    const status = Number(request.url?.slice(1));
    response.writeHead(status, status === 302 ? { location: '/200' } : {}).end('body');
  });
  for (const [path, expected] of [
    ['/200', true],
    ['/204', false],
    ['/302', false],
    ['/503', false],
  ] as const) {
    assert.equal(await isHealthy(engine.port, check({ path }), never), expected, path);
  }
});

test('an engine that is silent, resets, switches protocols or is not there is unhealthy', async () => {
  await using silent = await serve(() => undefined);
  assert.equal(await isHealthy(silent.port, check({ timeoutMs: 100 }), never), false);
  await using resetting = await serve((request) => request.socket.resetAndDestroy());
  assert.equal(await isHealthy(resetting.port, check(), never), false);
  await using switching = await serve(() => undefined);
  switching.server.on('connection', (socket) => {
    socket.once('data', () =>
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'),
    );
  });
  assert.equal(await isHealthy(switching.port, check(), never), false);
  resetting.server.close();
  assert.equal(await isHealthy(resetting.port, check(), never), false);
});

test('a failed check is tried again before it counts', async () => {
  let requests = 0;
  await using engine = await serve((_, response) => {
    requests++;
    response.writeHead(requests % 2 === 0 ? 200 : 500).end();
  });
  assert.equal(await isHealthy(engine.port, check({ retries: 1 }), never), true);
  assert.equal(await isHealthy(engine.port, check({ retries: 0 }), never), false);
  assert.equal(requests, 3);
});

test('checks leave no connection behind', async () => {
  await using engine = await serve((_, response) => {
    response.writeHead(200);
    response.write('a body without an end');
  });
  for (let count = 0; count < 5; count++) assert.equal(await isHealthy(engine.port, check(), never), true);
  const open = () => new Promise<number>((resolve) => engine.server.getConnections((_, count) => resolve(count)));
  await until(async () => (await open()) === 0);
});
