import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { startEngine } from './engine.ts';
import { openSockets } from './socket.ts';
import { until } from './until.ts';

test('the connections of a process are counted, its listening sockets are not', async () => {
  await using engine = await startEngine();
  const { port } = engine;
  assert.deepEqual(openSockets(process.pid, { port }), []);
  const sockets = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  // Both ends are in this process.
  await until(() => openSockets(process.pid, { port }).length === 4);
  assert.ok(openSockets(process.pid, { port }).every((socket) => socket.state === 'established'));
  for (const socket of sockets) socket.destroy();
  await until(() => openSockets(process.pid, { port }).length === 0);
});
