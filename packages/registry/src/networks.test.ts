import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readNetworks } from './networks.ts';

function allows(list: string, host: string): boolean {
  const read = readNetworks(list);
  assert.ok('allows' in read, list);
  return read.allows(host);
}

test('an address is allowed when one of the networks has it', () => {
  const list = '10.0.0.0/8, 192.168.1.7 ,fd00::/8';
  for (const host of ['10.0.0.1', '10.255.255.255', '192.168.1.7', 'fd00::1', 'fdff::'])
    assert.ok(allows(list, host), host);
  for (const host of ['11.0.0.1', '192.168.1.8', 'fe80::1', '::1', '127.0.0.1']) assert.ok(!allows(list, host), host);
});

test('a name is in no network, and without networks anything is allowed', () => {
  assert.ok(!allows('0.0.0.0/0,::/0', 'engine.local'));
  assert.ok(allows('0.0.0.0/0', '8.8.8.8'));
  assert.ok(allows('', 'engine.local'));
  assert.ok(allows('', '8.8.8.8'));
});

test('an IPv4 address in the form of IPv6 is the same address', () => {
  assert.ok(!allows('fd00::/8', '::ffff:10.0.0.1'));
  assert.ok(allows('10.0.0.0/8', '::ffff:10.0.0.1'));
});

test('what is no network is a mistake', () => {
  for (const list of [
    '10.0.0.0/33',
    'fd00::/129',
    '10.0.0',
    '10.0.0.0/8,',
    ',',
    'engine.local',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    'fe80::1%eth0',
  ]) {
    assert.ok('mistake' in readNetworks(list), list);
  }
  assert.ok('mistake' in readNetworks(Array.from({ length: 300 }, () => '10.0.0.1').join()));
});
