import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { createCertificates } from './certificate.ts';
import { startNats } from './nats.ts';
import { until } from './until.ts';

/**
 * Logs in with the client protocol's CONNECT and sends `lines`; resolves with all the server said
 * once it says `until`.
 */
async function converse(port: number, lines: readonly string[], expected: RegExp): Promise<string> {
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  let said = '';
  socket.on('data', (chunk) => {
    said += chunk;
  });
  await once(socket, 'connect');
  socket.write(`${lines.join('\r\n')}\r\n`);
  await until(() => expected.test(said), { what: `NATS says ${expected}` });
  socket.destroy();
  return said;
}

test('a server answers, and again after SIGKILL on the same port', async () => {
  await using nats = await startNats();
  await converse(nats.port, ['CONNECT {"verbose":false}', 'PING'], /PONG/);
  await nats.kill();
  assert.equal(nats.running, false);
  await nats.start();
  await converse(nats.port, ['CONNECT {"verbose":false}', 'PING'], /PONG/);
  const response = await fetch(`${nats.monitorUrl}/varz`);
  assert.equal(((await response.json()) as { port: number }).port, nats.port);
});

test('users have their passwords and their permissions', async () => {
  await using nats = await startNats({
    users: [{ user: 'router', password: 'secret', publish: ['allowed'], subscribe: ['_INBOX.>'] }],
  });
  await converse(nats.port, ['CONNECT {"user":"router","pass":"wrong"}', 'PING'], /Authorization Violation/);
  const login = 'CONNECT {"user":"router","pass":"secret","verbose":false}';
  const said = await converse(nats.port, [login, 'PUB allowed 0', '', 'PUB denied 0', '', 'PING'], /PONG/);
  assert.match(said, /Permissions Violation for Publish to "denied"/);
  assert.doesNotMatch(said, /allowed/);
});

test('a token is asked for', async () => {
  await using nats = await startNats({ token: 'abc' });
  await converse(nats.port, ['CONNECT {}', 'PING'], /Authorization Violation/);
  await converse(nats.port, ['CONNECT {"auth_token":"abc","verbose":false}', 'PING'], /PONG/);
});

test('TLS asks for a client certificate of the same authority', async () => {
  const { ca, server, client } = await createCertificates();
  await using nats = await startNats({ tls: { ...server, ca } });
  const socket = connect(nats.port, '127.0.0.1');
  const [info] = await once(socket, 'data');
  assert.match(String(info), /"tls_verify":true/);
  // NATS upgrades the connection after its INFO.
  const secure = connectTls({
    socket,
    ca: readFileSync(ca),
    cert: readFileSync(client.cert),
    key: readFileSync(client.key),
    servername: 'localhost',
  });
  await once(secure, 'secureConnect');
  secure.write('CONNECT {"verbose":false}\r\nPING\r\n');
  const [pong] = await once(secure, 'data');
  assert.match(String(pong), /PONG/);
  secure.destroy();
});
