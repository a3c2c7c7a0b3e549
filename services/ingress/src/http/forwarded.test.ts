import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FieldInterest, headerPairs, parseRequestHead } from '@llm-gateway/http1';
import { readTrustedProxies, withTrueWay } from './forwarded.ts';

const interest = new FieldInterest({ noted: [], withheld: ['host'] });

/** The headers that an instance gets of a request. */
function sent(trust: string, { address = '10.0.0.9', secure = false, lines = '' } = {}): [string, string][] {
  const read = readTrustedProxies(trust);
  assert.ok('proxies' in read && read.proxies !== null);
  const head = parseRequestHead(`GET / HTTP/1.1\r\nHost: gw.test:8089\r\nX-A: 1${lines}`, interest);
  return headerPairs(withTrueWay(head, { address, secure, proxies: read.proxies }).list);
}

const way = (addresses: string, proto = 'http', host = 'gw.test:8089') => [
  ['x-forwarded-for', addresses],
  ['x-forwarded-proto', proto],
  ['x-forwarded-host', host],
];

describe('what an instance learns of the way of a request', () => {
  const claims =
    '\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for: 192.168.3.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: api.test\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-Port: 443';

  it('is the address, scheme and host of the request itself when nothing is claimed', () => {
    assert.deepEqual(sent('none', { address: '::ffff:10.0.0.9', secure: true }), [
      ['X-A', '1'],
      ...way('10.0.0.9', 'https'),
    ]);
  });

  it('is the same whatever a sender claims that is not believed', () => {
    for (const trust of ['none', '192.168.0.0/16, fd00::/8']) {
      assert.deepEqual(sent(trust, { lines: claims }), [['X-A', '1'], ...way('10.0.0.9')]);
    }
  });

  it('is no address that a CDN would have written, in any spelling, unless the sender is believed', () => {
    const names = [
      'CF-Connecting-IP',
      'CF-Connecting-IPv6',
      'X-Original-Forwarded-For',
      'X_Real_IP',
      'Fly-Client-IP',
      'Fastly-Client-IP',
      'True-Client-IP',
      'X-Cluster-Client-IP',
      'X-Client-IP',
      'DO-Connecting-IP',
      'X-Envoy-External-Address',
      'Remote-Addr',
      'X-Original-Host',
      'X-Scheme',
    ];
    for (const name of names) {
      const lines = `\r\n${name}: 1.1.1.1\r\nX-Zip: 1\r\nX-Ratio: 2`;
      const rest = [['X-Zip', '1'], ['X-Ratio', '2'], ...way('10.0.0.9')];
      assert.deepEqual(sent('none', { lines }), [['X-A', '1'], ...rest], name);
      assert.deepEqual(sent('10.0.0.9', { lines }), [['X-A', '1'], [name, '1.1.1.1'], ...rest], name);
    }
    // Some servers take the two for one, so that nobody's word stands beside the true one.
    for (const trust of ['none', '10.0.0.9']) {
      const lines = '\r\nX_Forwarded_For: 1.1.1.1\r\nx-forwarded_proto: https';
      assert.deepEqual(sent(trust, { lines }), [['X-A', '1'], ...way('10.0.0.9')]);
    }
  });

  it('is what a believed proxy says, back to the first address that is none of a believed proxy', () => {
    const kept = [
      ['X-A', '1'],
      ['Forwarded', 'for=1.1.1.1'],
      ['X-Real-IP', '1.1.1.1'],
      ['X-Forwarded-Port', '443'],
    ];
    assert.deepEqual(sent('10.0.0.0/8', { lines: claims }), [
      ...kept,
      ...way('192.168.3.3, 10.0.0.9', 'https', 'api.test'),
    ]);
    const both = sent('10.0.0.0/8,192.168.0.0/16', { lines: claims });
    assert.deepEqual(both, [...kept, ...way('2.2.2.2, 192.168.3.3, 10.0.0.9', 'https', 'api.test')]);
  });

  it('takes addresses with ports and brackets, and nothing that is no address', () => {
    const lines = (value: string) => `\r\nX-Forwarded-For: ${value}`;
    assert.deepEqual(
      sent('10.0.0.9', { lines: lines('unknown, [2001:db8::1]:99') }).slice(1),
      way('2001:db8::1, 10.0.0.9'),
    );
    assert.deepEqual(sent('10.0.0.9', { lines: lines('4.4.4.4:1234') }).slice(1), way('4.4.4.4, 10.0.0.9'));
    assert.deepEqual(sent('10.0.0.9', { lines: lines('_hidden') }).slice(1), way('10.0.0.9'));
  });

  it('is no scheme and no host that cannot be one', () => {
    const lines = '\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a b';
    assert.deepEqual(sent('10.0.0.9', { lines }).slice(1), way('10.0.0.9'));
  });
});

describe('the list of believed proxies', () => {
  it('is empty, none, or networks and addresses', () => {
    assert.deepEqual(readTrustedProxies(' '), { proxies: null });
    for (const list of ['none', '10.0.0.0/8', '10.0.0.1, ::1,fd00::/8'])
      assert.ok('proxies' in readTrustedProxies(list));
    for (const list of ['all', '10.0.0.0/33', '10.0.0.1,', 'proxy.test', Array(257).fill('10.0.0.1').join()]) {
      assert.ok('mistake' in readTrustedProxies(list), list);
    }
  });
});
