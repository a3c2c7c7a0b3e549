import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { test } from 'node:test';
import { advertisedHost } from './advertised-host.ts';

test('what is configured is advertised', () => {
  assert.equal(advertisedHost('ingress-0.ingress'), 'ingress-0.ingress');
});

test('without configuration an address of this machine is advertised', () => {
  assert.notEqual(isIP(advertisedHost('')), 0);
});
