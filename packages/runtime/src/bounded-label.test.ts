import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics } from '@llm-gateway/testing';
import { boundedLabel, RecentLabel } from './bounded-label.ts';
import { Metrics } from './metrics.ts';

test('a bounded label keeps the first values and calls the others _overflow', () => {
  const label = boundedLabel(2);
  assert.deepEqual(['a', 'b', 'c', 'a', 'd', 'b'].map(label), ['a', 'b', '_overflow', 'a', '_overflow', 'b']);
});

test('a bounded label keeps no value of an absurd length', () => {
  const label = boundedLabel();
  assert.equal(label('x'.repeat(201)), '_overflow');
  assert.equal(label('x'.repeat(200)), 'x'.repeat(200));
});

test('a label of recent values gives the place of one that is no longer used to a new one, and drops its series', async () => {
  const metrics = new Metrics();
  let now = 0;
  const label = new RecentLabel((value) => metrics.forget('model', value), { now: () => now, max: 2 });
  const counter = metrics.counter({ name: 'a_total', help: 'a', labels: ['model', 'status'] });
  const count = (model: string) => counter.labels({ model: label.of(model), status: '200' }).inc();
  for (const model of ['invented-1', 'invented-2', 'served']) count(model);
  now = 400_000;
  count('invented-2');
  now = 700_000;
  for (const model of ['served', 'served', 'other']) count(model);
  const reading = parseMetrics((await metrics.exposition()).text);
  assert.deepEqual(
    reading.samples.map(({ labels, value }) => [labels.model, value]),
    [
      ['invented-2', 2],
      ['_overflow', 2],
      ['served', 2],
    ],
  );
});
