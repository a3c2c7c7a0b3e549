import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readCollectorSettings, tracingMistakes, tracingRemarks } from './environment.ts';

const plain = 'http://c:4318';
const secure = 'https://c:4318';

test('what would lose traces is a mistake', () => {
  const wrong: readonly (readonly [name: string, text: string, endpoint?: string])[] = [
    ['OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc'],
    ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'grpc'],
    ['OTEL_TRACES_EXPORTER', 'console'],
    ['OTEL_TRACES_EXPORTER', 'zipkin,console'],
    ['OTEL_TRACES_SAMPLER', 'jaeger_remote'],
    ['OTEL_TRACES_SAMPLER', 'always'],
    ['OTEL_EXPORTER_OTLP_CERTIFICATE', '/not/there.pem', secure],
    ['OTEL_EXPORTER_OTLP_CERTIFICATE', import.meta.filename, secure],
    ['OTEL_EXPORTER_OTLP_CLIENT_KEY', import.meta.filename, secure],
  ];
  for (const [name, text, endpoint = plain] of wrong) {
    const { mistakes, warnings } = readCollectorSettings({ [name]: text }, endpoint);
    assert.deepEqual(
      mistakes.map((mistake) => mistake.split(':')[0]),
      [name],
      text,
    );
    assert.deepEqual(warnings, []);
  }
});

test('what costs no trace is a warning', () => {
  for (const [name, text] of [
    ['OTEL_EXPORTER_OTLP_PROTOCOL', 'http/json'],
    ['OTEL_TRACES_EXPORTER', 'otlp,console'],
    ['OTEL_TRACES_SAMPLER', 'always_off'],
    ['OTEL_EXPORTER_OTLP_COMPRESSION', 'zstd'],
    ['OTEL_EXPORTER_OTLP_TIMEOUT', '10s'],
    ['OTEL_EXPORTER_OTLP_TRACES_TIMEOUT', '0'],
    ['OTEL_EXPORTER_OTLP_CERTIFICATE', '/not/there.pem'],
    ['OTEL_PROPAGATORS', 'b3'],
    ['OTEL_RESOURCE_ATTRIBUTES', 'team=a,region'],
    ['OTEL_RESOURCE_ATTRIBUTES', 'team=%zz'],
    ['OTEL_RESOURCE_ATTRIBUTES', `team=${'x'.repeat(256)}`],
  ] as const) {
    const { mistakes, warnings } = readCollectorSettings({ [name]: text }, plain);
    assert.deepEqual(mistakes, []);
    assert.deepEqual(
      warnings.map((warning) => warning.split(':')[0]),
      [name],
      text,
    );
  }
});

test('what is understood is neither', () => {
  const { timeoutMs, mistakes, warnings } = readCollectorSettings(
    {
      OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/protobuf',
      OTEL_TRACES_EXPORTER: 'otlp',
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
      OTEL_EXPORTER_OTLP_TIMEOUT: '3000',
      OTEL_EXPORTER_OTLP_HEADERS: 'api-key=s3cret, x-scope=a%2Cb,',
      OTEL_RESOURCE_ATTRIBUTES: 'team=a,region=eu%2Dwest,',
      OTEL_PROPAGATORS: 'tracecontext,baggage',
    },
    plain,
  );
  assert.deepEqual({ timeoutMs, mistakes, warnings }, { timeoutMs: 3000, mistakes: [], warnings: [] });
});

test('headers that could not be sent are a mistake, which repeats none of them', () => {
  for (const text of [
    's3cret',
    'api key=s3cret',
    'api-key=s3cret%0d%0ax',
    'api-key=s3cret%zz',
    'api-key=',
    'k=s3cret%E4%BD%A0',
  ]) {
    const { mistakes } = readCollectorSettings({ OTEL_EXPORTER_OTLP_HEADERS: `good=1,${text}` }, plain);
    assert.match(mistakes.join(), /^OTEL_EXPORTER_OTLP_HEADERS: item 2 /);
    assert.doesNotMatch(mistakes.join(), /s3cret/);
  }
});

test('while there is no collector nothing is a mistake, and traces that are asked for are missed', () => {
  assert.deepEqual(tracingMistakes({ otlpEndpoint: '' }, { OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }), []);
  const remarks = (env: Record<string, string>) => tracingRemarks({ otlpEndpoint: '' }, env).join();
  assert.match(remarks({ OTEL_TRACES_EXPORTER: 'console' }), /^OTEL_TRACES_EXPORTER: read "console"/);
  assert.equal(remarks({ OTEL_TRACES_EXPORTER: 'none' }), '');
  assert.equal(remarks({ OTEL_TRACES_EXPORTER: 'otlp', OTEL_SDK_DISABLED: 'true' }), '');
  assert.equal(remarks({}), '');
});
