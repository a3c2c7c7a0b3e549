import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Part, Results, Row } from '../results.ts';
import { series } from '../series.ts';
import { figures } from './figures.ts';
import { cell, number, table } from './markdown.ts';
import { picture } from './picture.ts';
import { report } from './report.ts';

function row(part: Part, subject: string, variant: string | number, values: Record<string, number[]>): Row {
  const all = Object.entries(values).map(([name, samples]) => [name, series(samples)]);
  return { part, subject, variant: String(variant), values: Object.fromEntries(all) };
}

const rows: readonly Row[] = [
  row('unary', 'direct', 32, { p50Ms: [0.5, 0.6], p99Ms: [1, 1], requestsPerSecond: [80_000, 70_000], errors: [0, 0] }),
  row('unary', 'nginx', 32, { cpuMicros: [50, 100], p50Ms: [1, 2], p99Ms: [2, 2], requestsPerSecond: [9, 9] }),
  row('unary', 'services', 32, {
    cpuMicros: [150, 320],
    'cpuMicros.ingress': [100, 200],
    'cpuMicros.router': [25, 60],
    'cpuMicros.nats': [25, 60],
    busMessages: [0.2, 0.2],
    p50Ms: [3, 4],
    p99Ms: [9, 9],
    requestsPerSecond: [5000, 4000],
    errors: [0, 2],
  }),
  row('unary', 'standalone', 32, { cpuMicros: [150, 300] }),
  row('unary', 'standalone, warn', 32, { cpuMicros: [125, 275] }),
  row('stream', 'nginx', 'spread', { cpuMicros: [40, 40], chunksPerSecond: [2500, 2500], busiest: [0.1, 0.1] }),
  row('stream', 'portkey', 'spread', { cpuMicros: [400, 400], chunksPerSecond: [2500, 2500], busiest: [0.97, 0.98] }),
  row('memory', 'services', 'streams', {
    restMb: [300],
    'restMb.ingress': [160],
    'restMb.router': [130],
    'restMb.nats': [10],
    'kbPerStream.5000': [31],
  }),
  row('rest', 'services', 'idle', {
    cpuMsPerSecond: [6, 6.5],
    'cpuMsPerSecond.ingress': [2.5, 2.7],
    'cpuMsPerSecond.router': [2.5, 2.7],
    'cpuMsPerSecond.nats': [1, 1.1],
  }),
  row('growth', 'instances', 2, { cpuMicros: [100], 'cpuMicros.ingress': [80] }),
  row('growth', 'instances', 1000, { cpuMicros: [120], 'cpuMicros.ingress': [90] }),
  row('growth', 'bodies, nginx', 1000, { cpuMicros: [20] }),
  row('growth', 'bodies, nginx', 5_000_000, { cpuMicros: [5019] }),
];

const results: Results = {
  takenAt: '2026-01-02T03:04:05.000Z',
  commit: '0123456789',
  plan: 'full',
  seconds: 1500,
  machine: { cpu: 'A CPU', cores: 2, memoryGb: 24, kernel: 'Linux 6', loadBefore: 0.1, loadAfter: 2, stolen: 0.001 },
  versions: { nginx: '1.22.1' },
  rows,
  failures: ['stream, portkey, step, round 1: the engine wrote no chunk'],
};

test('figures are taken round by round, and only when both sides were measured', () => {
  const of = (name: string) => figures(rows).find((figure) => figure.name.includes(name))?.measured;
  assert.deepEqual(of('services, 32 clients')?.samples, [3, 3.2]);
  assert.equal(of('services, 128 clients'), undefined);
  assert.equal(of('5,000 open')?.median, 31);
  assert.equal(of('1,000 instances')?.median, 1.2);
  assert.equal(of('standalone, 32 clients')?.median, 3);
  assert.deepEqual(of('CPU of the router')?.samples, [2.5, 2.7]);
  assert.deepEqual(of('info over warn')?.samples, [0.5, 0.25]);
});

test('the report says which figures were reached, what failed and who had no CPU left', () => {
  const text = report(results, 'latest.svg');
  assert.match(
    text,
    /services, 32 clients: CPU per request ÷ nginx \| ≤ 1\.8 \| 3\.10 \(3\.00–3\.20\) \| \*\*no\*\* \|/,
  );
  assert.match(text, /services, 128 clients: CPU per request ÷ nginx \| ≤ 1\.7 \| not measured \| - \|/);
  assert.match(text, /CPU of the ingress \| ≤ 3 ms\/s \| 2\.60 \(2\.50–2\.70\) ms\/s \| yes \|/);
  assert.match(text, /per stream \| ≤ 16 KB \| 31\.0 KB \| \*\*no\*\* \|/);
  assert.match(text, /\| portkey \| 400 \(400–400\) † \| 10\.0/);
  assert.match(
    text,
    /\| CPU µs per request \| 1,000 \| 5,000,000 \| µs per further MB \|\n.*\n\| nginx \| 20\.0 \| 5,019 \| 1,000 \|/,
  );
  assert.match(text, /- unary, services, 32: 2 requests failed\n- not measured: stream, portkey, step, round 1/);
  assert.match(text, /!\[[^\]]+\]\(latest\.svg\)/);
  assert.doesNotMatch(text, /NaN|undefined/);
});

test('parts that were not measured are left out', () => {
  const text = report({ ...results, rows: rows.filter(({ part }) => part === 'growth'), failures: [] }, 'partial.svg');
  assert.doesNotMatch(text, /## Streams|## Memory|partial\.svg/);
  assert.match(text, /None: every request/);
});

test('the picture has a bar for each target, the services in their parts', () => {
  const text = picture(rows);
  assert.match(text, /^<svg [^>]+>/);
  for (const name of ['nginx', 'services', 'standalone', 'portkey']) assert.ok(text.includes(`>${name}<`), name);
  assert.equal(text.match(/class="ours-2"/g)?.length, 2, 'one bar, one entry of the legend');
  assert.match(text, /prefers-color-scheme: dark/);
  assert.doesNotMatch(text, /NaN|undefined|Infinity/);
});

test('numbers have three digits and no exponent', () => {
  assert.deepEqual([0, 0.004, 1.234, 9.996, 55.55, 99.96, 170.4, 999.6, 12_345.6].map(number), [
    '0.00',
    '0.00',
    '1.23',
    '10.0',
    '55.5',
    '100',
    '170',
    '1,000',
    '12,346',
  ]);
  assert.equal(cell(series([5])), '5.00');
  assert.equal(cell(undefined), '-');
});

test('a table aligns words to the left and numbers to the right', () => {
  const expected = '| a | b |\n| --- | ---: |\n| word | 1.00 |';
  assert.equal(table(['a', 'b'], [['word', '1.00']]), expected);
});
