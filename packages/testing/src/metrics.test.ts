import assert from 'node:assert/strict';
import { test } from 'node:test';
import { respond } from './answer.ts';
import { startEngine } from './engine.ts';
import { parseMetrics, readMetrics } from './metrics.ts';

const text = `# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{model="a",status="200"} 3
requests_total{model="b\\"\\\\,}\\n",status="200"} 4
requests_total{model="a",status="500"} 1 1700000000000
# HELP nothing_total Declared, without a sample.
# TYPE nothing_total counter
up 1
duration_bucket{le="+Inf"} 2
biggest +Inf
`;

test('samples are summed over the labels that are not asked for', () => {
  const metrics = parseMetrics(text);
  assert.equal(metrics.value('requests_total'), 8);
  assert.equal(metrics.value('requests_total', { model: 'a' }), 4);
  assert.equal(metrics.value('requests_total', { model: 'a', status: '500' }), 1);
  assert.equal(metrics.value('requests_total', { model: 'b"\\,}\n' }), 4);
  assert.equal(metrics.value('duration_bucket', { le: '+Inf' }), 2);
  assert.equal(metrics.value('biggest'), Number.POSITIVE_INFINITY);
  assert.equal(metrics.value('up'), 1);
});

test('a declared metric without samples is 0, one that nobody declared is an error', () => {
  const metrics = parseMetrics(text);
  assert.equal(metrics.value('nothing_total'), 0);
  assert.equal(metrics.value('requests_total', { model: 'c' }), 0);
  assert.throws(() => metrics.value('request_total'), /no metric named request_total/);
});

test('metrics are read over HTTP', async () => {
  await using engine = await startEngine(() => respond(200, text));
  assert.equal((await readMetrics(`${engine.url}/metrics`)).value('up'), 1);
});
