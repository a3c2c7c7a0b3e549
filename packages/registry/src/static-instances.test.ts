import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readStaticInstances } from './static-instances.ts';

function ids(list: string): string[] {
  const read = readStaticInstances(list);
  assert.ok('instances' in read, JSON.stringify(read));
  return read.instances.map((instance) => instance.id);
}

test('an instance of a static list has every role, port 80 when it names none, and a KV address 20000 above its port', () => {
  assert.deepEqual(readStaticInstances('engine'), {
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

test('instances of a static list are sorted, blanks around them trimmed, and each counts once', () => {
  assert.deepEqual(ids('b:2, a:1 ,b:2'), ['a:1_dp0', 'b:2_dp0']);
});

test('an IPv6 address is written in brackets and addressed without them', () => {
  const read = readStaticInstances('[::1]:8090,[fd00::2]');
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
    const read = readStaticInstances(list);
    assert.ok('mistake' in read, `${JSON.stringify(list)} was read`);
  }
});

test('an address without room for a KV port is a mistake only when KV ports are needed', () => {
  assert.ok('instances' in readStaticInstances('a:45535', { kvPorts: true }));
  assert.ok('mistake' in readStaticInstances('a:45536', { kvPorts: true }));
  const read = readStaticInstances('a:45536');
  assert.ok('instances' in read);
  assert.equal(read.instances[0]?.kvPort, 0);
});
