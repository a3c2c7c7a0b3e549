import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CpuProfile, summarize } from './cpu-profile.ts';

const frame = (functionName: string, url = '', lineNumber = -1) => ({ functionName, url, lineNumber });

const profile: CpuProfile = {
  nodes: [
    { id: 1, callFrame: frame('(idle)') },
    { id: 2, callFrame: frame('(garbage collector)') },
    { id: 3, callFrame: frame('serve', 'file:///repo/services/ingress/src/request.ts', 53) },
    { id: 4, callFrame: frame('', 'file:///repo/node_modules/@scope/lib/dist/a.js', 9) },
    { id: 5, callFrame: frame('writev', 'node:internal/streams/writable', 4) },
    // The same function, called from elsewhere.
    { id: 7, callFrame: frame('writeBuffer') },
    { id: 6, callFrame: frame('serve', 'file:///repo/services/ingress/src/request.ts', 53) },
  ],
  startTime: 1000,
  samples: [3, 1, 3, 2, 4, 5, 6, 7, 3],
  timeDeltas: [10, 10, 10, 10, 10, 10, 10, 10, 10],
};

test('self time is summed by function and by origin, within the time asked for and without idling', () => {
  const summary = summarize(profile, { fromMicros: 1015, toMicros: 1085, root: '/repo' });
  assert.equal(summary.busyMicros, 60);
  assert.deepEqual(summary.functions[0], { name: 'serve', where: 'services/ingress/src/request.ts:54', micros: 20 });
  assert.deepEqual(
    summary.functions.slice(1).map(({ name, where }) => `${name} ${where}`),
    [
      '(garbage collector) ',
      '(anonymous) node_modules/@scope/lib/dist/a.js:10',
      'writev node:internal/streams/writable:5',
      'writeBuffer ',
    ],
  );
  assert.deepEqual(
    summary.origins.map(({ name }) => name),
    ['services/ingress', '(garbage collector)', '@scope/lib', 'node:internal/streams', 'native functions of Node.js'],
  );
});
