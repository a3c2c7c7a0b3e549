import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentSecrets, secretsOfUrl, withoutUrlSecrets } from './url-secrets.ts';

test('what is shown of a URL holds neither a password nor a value of its query', () => {
  for (const [text, shown] of [
    ['nats://u:p@a:1,nats://u:p@b:1', 'nats://[redacted]@a:1,nats://[redacted]@b:1'],
    ['https://a/x?limit=1&api_key=s3cret&b=2', 'https://a/x?limit=[redacted]&api_key=[redacted]&b=[redacted]'],
    ['http://a/v1?s3cret, http://b?s3cret', 'http://a/v1?[redacted], http://b?[redacted]'],
    ['read "http://u:p@a?Token=t", allowed: a URL', 'read "http://[redacted]@a?Token=[redacted]", allowed: a URL'],
    ['http://a?sig=', 'http://a?sig='],
    ['what?', 'what?'],
  ] as const) {
    assert.equal(withoutUrlSecrets(text), shown);
  }
  const long = `?${'key'.repeat(1_000_000)}`;
  assert.equal(withoutUrlSecrets(long), long);
});

test('the secrets of a URL are known as they are written, and decoded', () => {
  assert.deepEqual(secretsOfUrl('http://u:a%2Fb@h/?x=1&token=c%20d'), ['a%2Fb', 'a/b', 'c%20d', 'c d']);
  assert.deepEqual(secretsOfUrl('http://h/?x=1'), []);
  assert.deepEqual(secretsOfUrl('no URL'), []);
});

test('the secrets of the environment are those of proxies and of the collector', () => {
  const env = {
    https_proxy: 'http://u:proxy@h',
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20x, b=y',
    OTHER: 'http://u:other@h',
  };
  assert.deepEqual(environmentSecrets(env), [
    ['https_proxy', 'proxy'],
    ['OTEL_EXPORTER_OTLP_HEADERS[0]', 'Bearer x'],
    ['OTEL_EXPORTER_OTLP_HEADERS[1]', 'y'],
  ]);
});
