import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tracesUrl, tracingOptions } from './options.ts';

test('the path of the traces goes behind that of the endpoint and before its query', () => {
  const standard = tracingOptions['otlp-endpoint'].standard.find(({ name }) => name === 'OTEL_EXPORTER_OTLP_ENDPOINT');
  assert.ok(standard !== undefined && 'read' in standard);
  for (const [given, posted] of [
    ['http://c:4318', 'http://c:4318/v1/traces'],
    ['http://c:4318/', 'http://c:4318/v1/traces'],
    ['http://c:4318/base', 'http://c:4318/base/v1/traces'],
    ['http://c:4318?key=1', 'http://c:4318/v1/traces?key=1'],
  ] as const) {
    assert.equal(tracesUrl(standard.read(given) ?? ''), posted);
  }
  assert.equal(standard.read('not a URL'), 'not a URL');
});
