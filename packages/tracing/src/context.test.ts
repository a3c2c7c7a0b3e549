import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boundedTracestate, formatTraceparent, newSpanId, newTraceId, parseTraceparent } from './context.ts';

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

test('a tracestate goes on as it is, in one field and without its empty members', () => {
  assert.equal(boundedTracestate(['a=1,b=2']), 'a=1,b=2');
  assert.equal(boundedTracestate(['a=1, b=2,', ',c=3']), 'a=1,b=2,c=3');
  assert.equal(boundedTracestate(['', ' , ']), undefined);
  const whole = `a=${'x'.repeat(126)},b=${'x'.repeat(381)}`;
  assert.equal(whole.length, 512);
  assert.equal(boundedTracestate([whole]), whole);
});

test('of a tracestate that is too long the longest members go first, then the last ones', () => {
  const long = `l=${'x'.repeat(200)}`;
  const short = Array.from({ length: 30 }, (_, at) => `k${at}=${'y'.repeat(16)}`);
  assert.equal(boundedTracestate([[long, ...short.slice(0, 20)].join(',')]), short.slice(0, 20).join(','));
  const left = boundedTracestate([short.join(',')]) ?? '';
  assert.ok(left.length <= 512 && left.length > 480 && short.join(',').startsWith(left));
  assert.equal(boundedTracestate([`l=${'x'.repeat(600)}`]), undefined);
});

test('a tracestate of more than 32 members is none, however many there are', () => {
  const members = (count: number) => Array.from({ length: count }, (_, at) => `${at}=1`).join(',');
  assert.equal(boundedTracestate([members(32)]), members(32));
  assert.equal(boundedTracestate([members(33)]), undefined);
  assert.equal(boundedTracestate([members(10_000)]), undefined);
});

test('new ids are valid', () => {
  assert.ok(parseTraceparent(`00-${newTraceId()}-${newSpanId()}-01`));
});
