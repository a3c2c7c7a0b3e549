import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics } from '@llm-gateway/testing';
import fc from 'fast-check';
import { Metrics } from './metrics.ts';

async function read(metrics: Metrics) {
  return parseMetrics((await metrics.exposition()).text);
}

test('a counter is exposed under the prefix with help and type', async () => {
  const metrics = new Metrics();
  const counter = metrics.counter({ name: 'copies_total', help: 'Copies sent' });
  counter.inc();
  counter.inc(2);
  assert.equal(
    (await metrics.exposition()).text,
    '# HELP llm_gateway_copies_total Copies sent\n# TYPE llm_gateway_copies_total counter\nllm_gateway_copies_total 3\n',
  );
  assert.match((await metrics.exposition()).contentType, /^text\/plain/);
});

test('a metric without labels is exposed before anything happened, one with labels has no series yet', async () => {
  const metrics = new Metrics();
  metrics.counter({ name: 'a_total', help: 'a' });
  metrics.counter({ name: 'b_total', help: 'b', labels: ['c'] });
  const reading = await read(metrics);
  assert.deepEqual(reading.samples, [{ name: 'llm_gateway_a_total', labels: {}, value: 0 }]);
  assert.equal(reading.value('llm_gateway_b_total'), 0);
});

test('the same label values are the same series, in whatever order they are named', async () => {
  const metrics = new Metrics();
  const counter = metrics.counter({ name: 'a_total', help: 'a', labels: ['model', 'status'] });
  const series = counter.labels({ model: 'm', status: '200' });
  assert.equal(counter.labels({ status: '200', model: 'm' }), series);
  assert.notEqual(counter.labels({ model: '200', status: 'm' }), series);
  series.inc();
  const reading = await read(metrics);
  assert.equal(reading.value('llm_gateway_a_total', { model: 'm', status: '200' }), 1);
  assert.equal(reading.value('llm_gateway_a_total', { model: '200' }), 0);
});

test('label values are escaped', async () => {
  const metrics = new Metrics();
  const value = 'a"b\\c\nd';
  metrics
    .counter({ name: 'a_total', help: 'a', labels: ['model'] })
    .labels({ model: value })
    .inc();
  assert.equal((await read(metrics)).value('llm_gateway_a_total', { model: value }), 1);
});

test('a gauge is set, moved, or read at each scrape', async () => {
  const metrics = new Metrics();
  const depth = metrics.gauge({ name: 'depth', help: 'd' });
  depth.set(5);
  depth.add(-2);
  let age = 1;
  metrics.gauge({ name: 'age_seconds', help: 'a', collect: () => age });
  assert.equal((await read(metrics)).value('llm_gateway_age_seconds'), 1);
  age = 2;
  const reading = await read(metrics);
  assert.equal(reading.value('llm_gateway_depth'), 3);
  assert.equal(reading.value('llm_gateway_age_seconds'), 2);
});

test('series that a scrape does not set are gone', async () => {
  const metrics = new Metrics();
  let roles = ['prefill', 'decode'];
  metrics.gauge({
    name: 'instances',
    help: 'i',
    labels: ['role'],
    collect: (set) => {
      for (const role of roles) set({ role }, 1);
    },
  });
  assert.equal((await read(metrics)).samples.length, 2);
  roles = ['decode'];
  assert.deepEqual((await read(metrics)).samples, [
    { name: 'llm_gateway_instances', labels: { role: 'decode' }, value: 1 },
  ]);
});

test('a histogram has cumulative buckets, a sum and a count', async () => {
  const metrics = new Metrics();
  const histogram = metrics.histogram({ name: 'wait_seconds', help: 'w', labels: ['route'], buckets: [0.1, 1] });
  for (const value of [0, 0.1, 0.5, 1, 7]) histogram.labels({ route: 'a' }).observe(value);
  const text = (await metrics.exposition()).text;
  assert.equal(
    text,
    [
      '# HELP llm_gateway_wait_seconds w',
      '# TYPE llm_gateway_wait_seconds histogram',
      'llm_gateway_wait_seconds_bucket{route="a",le="0.1"} 2',
      'llm_gateway_wait_seconds_bucket{route="a",le="1"} 4',
      'llm_gateway_wait_seconds_bucket{route="a",le="+Inf"} 5',
      'llm_gateway_wait_seconds_sum{route="a"} 8.6',
      'llm_gateway_wait_seconds_count{route="a"} 5',
      '',
    ].join('\n'),
  );
});

test('property: each observation is in exactly the buckets whose bound it does not exceed', async () => {
  const finite = fc.double({ noNaN: true, noDefaultInfinity: true });
  const bounds = fc.uniqueArray(fc.double({ noNaN: true, noDefaultInfinity: true, min: 0 }), { minLength: 1 });
  await fc.assert(
    fc.asyncProperty(bounds, fc.array(finite), async (unsorted, values) => {
      const buckets = unsorted.toSorted((a, b) => a - b);
      const metrics = new Metrics();
      const histogram = metrics.histogram({ name: 'x', help: 'x', buckets });
      for (const value of values) histogram.observe(value);
      const reading = await read(metrics);
      for (const bound of buckets) {
        const expected = values.filter((value) => value <= bound).length;
        assert.equal(reading.value('llm_gateway_x_bucket', { le: String(bound) }), expected);
      }
      assert.equal(reading.value('llm_gateway_x_count'), values.length);
    }),
  );
});

test('a metric that is declared again is the same one', async () => {
  const metrics = new Metrics();
  const spec = { name: 'a_total', help: 'a', labels: ['x'] } as const;
  metrics.counter(spec).labels({ x: '1' }).inc();
  metrics.counter(spec).labels({ x: '1' }).inc();
  assert.equal((await read(metrics)).value('llm_gateway_a_total'), 2);
});

test('a metric that is declared again as something else is refused', () => {
  const metrics = new Metrics();
  metrics.histogram({ name: 'a', help: 'a' });
  assert.throws(() => metrics.gauge({ name: 'a', help: 'a' }), /declared as/);
  assert.throws(() => metrics.histogram({ name: 'a', help: 'a', buckets: [1] }), /declared as/);
  assert.throws(() => metrics.histogram({ name: 'a', help: 'a', labels: ['x'] }), /declared as/);
});

test('a metric never holds more than ten thousand series', async () => {
  const metrics = new Metrics();
  const counter = metrics.counter({ name: 'a_total', help: 'a', labels: ['x', 'y'] });
  for (let i = 0; i < 12_000; i++) counter.labels({ x: `${i}`, y: 'y' }).inc();
  const reading = await read(metrics);
  assert.equal(reading.samples.length, 10_001);
  assert.equal(reading.value('llm_gateway_a_total', { x: '_overflow', y: '_overflow' }), 2000);
});

test('OpenMetrics is what it is called there, with the trace of an observation, and plain text stays as it was', async () => {
  const metrics = new Metrics();
  metrics.counter({ name: 'a_total', help: 'a' }).inc();
  metrics.gauge({ name: 'depth', help: 'd', collect: () => 2 });
  const histogram = metrics.histogram({ name: 'wait_seconds', help: 'w', buckets: [1] });
  histogram.observe(0.5, '0af7651916cd43dd8448eb211c80319c');
  histogram.observe(0.25);
  const plain = (await metrics.exposition()).text;
  const open = await metrics.exposition('application/openmetrics-text;version=1.0.0,text/plain;q=0.5');
  assert.match(open.contentType, /^application\/openmetrics-text/);
  const lines = open.text.split('\n');
  assert.equal(lines.at(-2), '# EOF');
  assert.ok(lines.includes('# TYPE llm_gateway_a counter'));
  assert.ok(lines.includes('llm_gateway_a_total 1'));
  assert.ok(lines.includes('llm_gateway_depth 2'));
  assert.match(
    open.text,
    /^llm_gateway_wait_seconds_bucket\{le="1"\} 2 # \{trace_id="0af7651916cd43dd8448eb211c80319c"\} 0\.5 \d+(\.\d+)?$/m,
  );
  assert.equal((await metrics.exposition()).text, plain);
  assert.ok(!plain.includes('trace_id'));
});

test('OpenMetrics is for those who prefer it', async () => {
  const metrics = new Metrics();
  const isOpen = async (accept?: string) => {
    const { contentType } = await metrics.exposition(accept);
    return contentType.startsWith('application/openmetrics-text');
  };
  const prometheus =
    'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1';
  for (const accept of [
    prometheus,
    'application/openmetrics-text',
    'APPLICATION/OpenMetrics-Text; version=1.0.0',
    'text/html, application/openmetrics-text;q=0.1',
  ]) {
    assert.equal(await isOpen(accept), true, accept);
  }
  assert.equal(await isOpen(), false);
  for (const accept of [
    '*/*',
    'application/openmetrics-text;q=0',
    'application/openmetrics-text;q=0.1,text/plain',
    'text/plain;note="application/openmetrics-text"',
    'application/openmetrics-text-2',
    'x-application/openmetrics-text',
    `application/openmetrics-text,${'a/b,'.repeat(1000)}`,
  ]) {
    assert.equal(await isOpen(accept), false, accept);
  }
});
