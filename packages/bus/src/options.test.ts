import assert from 'node:assert/strict';
import { test } from 'node:test';
import { busMistakes, busOptions, serverList } from './options.ts';

const { validate } = busOptions['nats-servers'];

test('servers are given with or without a scheme, several with commas', () => {
  for (const good of ['nats://nats:4222', 'nats', 'a:4222, b:4223', 'tls://nats.example:4222', 'nats://[::1]:4222']) {
    assert.equal(validate(good), undefined, good);
  }
  assert.deepEqual(serverList(' a:1 ,, b:2 '), ['a:1', 'b:2']);
});

test('servers that cannot be meant are mistakes', () => {
  for (const bad of ['', ' , ', 'http://nats:4222', 'ws://nats', 'nats://user:secret@nats:4222', 'nats:99999']) {
    assert.ok(validate(bad), bad);
  }
});

test('a mistake about a server with a password does not repeat the password', () => {
  assert.doesNotMatch(validate('nats://user:secret@nats:4222') ?? '', /secret/);
});

test('flags that contradict each other are mistakes', () => {
  const natsServers = 'nats:4222';
  assert.deepEqual(busMistakes({ natsServers }), []);
  assert.deepEqual(busMistakes({ natsServers, natsUser: 'u', natsPassword: () => 'p', natsTlsCaFile: 'ca.pem' }), []);
  assert.match(
    busMistakes({ natsServers, natsUser: 'u', natsToken: () => 't' })[0] ?? '',
    /--nats-user and --nats-token/,
  );
  assert.match(busMistakes({ natsServers, natsPassword: () => 'p' })[0] ?? '', /--nats-user/);
  assert.match(busMistakes({ natsServers, natsTlsCertFile: 'c' })[0] ?? '', /--nats-tls-key-file/);
  assert.match(busMistakes({ natsServers, natsTlsKeyFile: 'k' })[0] ?? '', /--nats-tls-cert-file/);
});
