import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readProxies } from './proxy-environment.ts';

test('the proxies are those of the environment, small letters first', () => {
  assert.deepEqual(readProxies({}), { proxies: null });
  assert.deepEqual(readProxies({ HTTP_PROXY: '', NO_PROXY: 'a' }), { proxies: null });
  assert.deepEqual(readProxies({ HTTPS_PROXY: 'http://p:3128', no_proxy: 'a,.b', NO_PROXY: 'c' }), {
    proxies: { httpProxy: '', httpsProxy: 'http://p:3128', noProxy: 'a,.b,localhost,127.0.0.1,::1' },
  });
  assert.deepEqual(readProxies({ http_proxy: 'http://small', HTTP_PROXY: 'http://large' }), {
    proxies: { httpProxy: 'http://small', httpsProxy: 'http://small', noProxy: 'localhost,127.0.0.1,::1' },
  });
});

test('a proxy that is no URL is a mistake, told without its value', () => {
  const read = readProxies({ HTTPS_PROXY: 'user:s3cret@proxy', http_proxy: 'socks5://p' });
  assert.deepEqual(read, {
    mistakes: [
      'HTTP_PROXY in the environment: allowed: an http or https URL',
      'HTTPS_PROXY in the environment: allowed: an http or https URL',
    ],
  });
});
