import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTraceparent, newSpanId, newTraceId, parseTraceparent } from './context.ts';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const spanId = 'b7ad6b7169203331';

test('a traceparent is read and written', () => {
  for (const sampled of [true, false]) {
    const text = `00-${traceId}-${spanId}-0${Number(sampled)}`;
    assert.deepEqual(parseTraceparent(text), { traceId, spanId, sampled });
    assert.equal(formatTraceparent({ traceId, spanId, sampled }), text);
  }
});

test('one of a later version is read as far as it is known', () => {
  assert.deepEqual(parseTraceparent(`cc-${traceId}-${spanId}-09-what-else`), { traceId, spanId, sampled: true });
});

test('what is none is nothing', () => {
  const wrong = [
    undefined,
    '',
    'x',
    `ff-${traceId}-${spanId}-01`,
    `00-${traceId}-${spanId}-01-more`,
    `00-${traceId.toUpperCase()}-${spanId}-01`,
    `00-${'0'.repeat(32)}-${spanId}-01`,
    `00-${traceId}-${'0'.repeat(16)}-01`,
    `00-${traceId}-${spanId}`,
    `01-${traceId}-${spanId}-01-${'x'.repeat(300)}`,
  ];
  for (const text of wrong) assert.equal(parseTraceparent(text), null, `${text}`);
});

test('new ids are valid', () => {
  assert.ok(parseTraceparent(`00-${newTraceId()}-${newSpanId()}-01`));
});
