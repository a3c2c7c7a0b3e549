import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readEtcdUrls } from './addresses.ts';

test('etcd endpoints get a scheme and a port where they have none', () => {
  assert.deepEqual(readEtcdUrls(' etcd-0:2379 , http://etcd-1:2380/,etcd-2, etcd-0:2379,'), {
    urls: ['http://etcd-0:2379', 'http://etcd-1:2380', 'http://etcd-2:2379'],
  });
  assert.deepEqual(readEtcdUrls('https://[::1]:2379'), { urls: ['https://[::1]:2379'] });
});

test('etcd endpoints that are none, unreadable or of two schemes are a mistake', () => {
  for (const list of ['', ' , ', 'ftp://a:1', 'a:1:2', 'http://a:1,https://b:1', 'http://user@a:1']) {
    assert.ok('mistake' in readEtcdUrls(list), `${JSON.stringify(list)} was read`);
  }
});
