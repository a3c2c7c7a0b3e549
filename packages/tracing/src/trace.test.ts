import assert from 'node:assert/strict';
import { test } from 'node:test';
import { names } from './attributes.ts';
import type { Trace } from './trace.ts';
import { Tracing } from './tracing.ts';

const parent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331';

function scene({ drawn = false, restart = false } = {}) {
  const exported: Trace[] = [];
  const sink = { drawn: () => drawn, export: (trace: Trace) => exported.push(trace) };
  return { exported, tracing: new Tracing({ traceSlowMs: 0, traceRestart: restart }, sink) };
}

test('a trace that goes on is kept as its sender says, one that begins here as the ratio says', () => {
  const { tracing } = scene({ drawn: true });
  const kept = (given?: string) => tracing.begin('x', { kind: 'server', parent: given }).kept;
  assert.equal(kept(`${parent}-00`), false);
  assert.equal(kept(`${parent}-01`), true);
  assert.equal(kept(), true);
  assert.equal(kept('nonsense'), true);
});

test('a trace that is begun anew has nothing of the one that came but a link', () => {
  const { tracing } = scene();
  const trace = tracing.begin('x', { kind: 'server', parent: `${parent}-01`, relation: 'restarted' });
  assert.equal(trace.kept, false);
  assert.equal(trace.parent, null);
  assert.equal(trace.link?.spanId, 'b7ad6b7169203331');
});

test('what is not kept is not exported; what is told to others changes once it is', () => {
  const { tracing, exported } = scene();
  const [left, worth] = [tracing.begin('left', { kind: 'server' }), tracing.begin('worth', { kind: 'server' })];
  assert.match(worth.contextOf(worth.root), /-00$/);
  worth.keep();
  assert.match(worth.contextOf(worth.root), /-01$/);
  for (const trace of [left, worth]) tracing.end(trace);
  assert.deepEqual(exported, [worth]);
});

test('a request that is retried without end exports a bounded number of spans, and says so', () => {
  const { tracing, exported } = scene({ drawn: true });
  const trace = tracing.begin('x', { kind: 'server' });
  for (let i = 0; i < 100; i++) trace.open('call').end();
  tracing.end(trace);
  assert.equal(exported[0]?.spans.length, 64);
  assert.equal(trace.root.attributes[names.spansLeftOut], 37);
});

test('a step that goes on when the request ends is over with it', () => {
  const { tracing } = scene({ drawn: true });
  const trace = tracing.begin('x', { kind: 'server' });
  const step = trace.open('call');
  tracing.end(trace, 'reset');
  assert.equal(step.endedAtMs, trace.root.endedAtMs);
  assert.deepEqual([step.error, trace.root.error], [undefined, 'reset']);
});
