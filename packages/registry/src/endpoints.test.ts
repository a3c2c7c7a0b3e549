import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readEtcdEndpoints, readStaticEndpoints } from './endpoints.ts';

function ids(list: string): string[] {
  const read = readStaticEndpoints(list);
  assert.ok('instances' in read, JSON.stringify(read));
  return read.instances.map((instance) => instance.id);
}

test('a static endpoint has every role, port 80 when it names none, and a KV address 20000 above its port', () => {
  assert.deepEqual(readStaticEndpoints('engine'), {
    instances: [
      {
        id: 'engine:80_dp0',
        roles: ['neutral', 'prefill', 'decode'],
        host: 'engine',
        port: 80,
        kvHost: 'engine',
        kvPort: 20080,
        dpRank: 0,
        dpSize: 1,
        model: '',
      },
    ],
  });
});

test('static endpoints are sorted, blanks around them trimmed, and each counts once', () => {
  assert.deepEqual(ids('b:2, a:1 ,b:2'), ['a:1_dp0', 'b:2_dp0']);
});

test('an IPv6 endpoint is written in brackets and addressed without them', () => {
  const read = readStaticEndpoints('[::1]:8090,[fd00::2]');
  assert.ok('instances' in read);
  assert.deepEqual(
    read.instances.map(({ id, host, port }) => ({ id, host, port })),
    [
      { id: '[::1]:8090_dp0', host: '::1', port: 8090 },
      { id: '[fd00::2]:80_dp0', host: 'fd00::2', port: 80 },
    ],
  );
});

test('a list that is empty or holds anything but addresses is a mistake', () => {
  for (const list of [
    '',
    ',',
    'a:1,',
    'a:',
    'a:0',
    'a:65536',
    'a:b',
    '::1',
    '[::1',
    '[a]:1',
    'http://a:1',
    'a b',
    '-a',
    ':80',
  ]) {
    const read = readStaticEndpoints(list);
    assert.ok('mistake' in read, `${JSON.stringify(list)} was read`);
  }
});

test('an endpoint without room for a KV port is a mistake only when KV ports are needed', () => {
  assert.ok('instances' in readStaticEndpoints('a:45535', { kvPorts: true }));
  assert.ok('mistake' in readStaticEndpoints('a:45536', { kvPorts: true }));
  const read = readStaticEndpoints('a:45536');
  assert.ok('instances' in read);
  assert.equal(read.instances[0]?.kvPort, 0);
});

test('etcd endpoints get a scheme and a port where they have none', () => {
  assert.deepEqual(readEtcdEndpoints(' etcd-0:2379 , http://etcd-1:2380/,etcd-2, etcd-0:2379,'), {
    urls: ['http://etcd-0:2379', 'http://etcd-1:2380', 'http://etcd-2:2379'],
  });
  assert.deepEqual(readEtcdEndpoints('https://[::1]:2379'), { urls: ['https://[::1]:2379'] });
});

test('etcd endpoints that are none, unreadable or of two schemes are a mistake', () => {
  for (const list of ['', ' , ', 'ftp://a:1', 'a:1:2', 'http://a:1,https://b:1', 'http://user@a:1']) {
    assert.ok('mistake' in readEtcdEndpoints(list), `${JSON.stringify(list)} was read`);
  }
});
