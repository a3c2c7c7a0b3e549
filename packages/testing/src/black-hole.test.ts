import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBlackHole } from './black-hole.ts';

test('connecting to a black hole neither succeeds nor fails', async () => {
  await using hole = await startBlackHole();
  const events: string[] = [];
  const sockets = Array.from({ length: 5 }, () => connect(hole.port, hole.host));
  for (const socket of sockets) {
    for (const name of ['connect', 'error', 'close']) socket.on(name, () => events.push(name));
  }
  // Long enough for the first retransmission of a SYN, which a backlog with room would answer.
  await sleep(1300);
  assert.deepEqual(events, []);
  for (const socket of sockets) socket.destroy();
});
