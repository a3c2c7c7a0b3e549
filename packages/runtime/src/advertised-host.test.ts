import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { test } from 'node:test';
import { advertisedHost } from './advertised-host.ts';

test('what is configured is advertised', () => {
  assert.equal(advertisedHost({ advertiseHost: 'ingress-0.ingress', listenHost: '127.0.0.1' }), 'ingress-0.ingress');
});

test('without configuration the address that is listened on is advertised', () => {
  assert.equal(advertisedHost({ advertiseHost: '', listenHost: '127.0.0.1' }), '127.0.0.1');
});

test('an address of this machine is advertised for a listener on all of them', () => {
  for (const listenHost of ['', '0.0.0.0', '::']) {
    assert.ok(isIP(advertisedHost({ advertiseHost: '', listenHost })) > 0);
    assert.notEqual(advertisedHost({ advertiseHost: '', listenHost }), listenHost);
  }
});
