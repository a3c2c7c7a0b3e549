import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reasons } from './reasons.ts';

class Scene {
  nowMs = 0;
  readonly lines: object[] = [];
  readonly reasons = new Reasons(
    (fields, msg) => this.lines.push({ ...fields, msg }),
    () => this.nowMs,
  );

  fail(text: string): void {
    this.reasons.report(new Error(text), 'store is away', { store: 'x' });
  }
}

test('each new reason is a line at once, the same one is left out for a minute and counted', () => {
  const scene = new Scene();
  for (let i = 0; i < 3; i++) scene.fail(`refused 127.0.0.1:${i}`);
  scene.fail('wrong password');
  scene.nowMs = 59_999;
  scene.fail('refused 127.0.0.1:9');
  scene.nowMs = 60_000;
  scene.fail('refused 127.0.0.1:10');
  scene.fail('wrong password');
  const line = { store: 'x', msg: 'store is away' };
  assert.deepEqual(scene.lines, [
    { ...line, cause: 'refused 127.0.0.1:0' },
    { ...line, cause: 'wrong password' },
    { ...line, cause: 'refused 127.0.0.1:10', leftOut: 3 },
    { ...line, cause: 'wrong password' },
  ]);
});

test('the end of trouble is worth a line when the trouble was', () => {
  const scene = new Scene();
  assert.equal(scene.reasons.end(), false);
  scene.fail('refused');
  assert.equal(scene.reasons.end(), true);
  scene.fail('refused');
  assert.equal(scene.reasons.end(), false);
});

test('reasons without end are bounded, within a minute and in memory', () => {
  const scene = new Scene();
  const word = (i: number) => 'x'.repeat(i + 1);
  for (let i = 0; i < 1000; i++) scene.fail(word(i));
  assert.equal(scene.lines.length, 32);
  scene.nowMs = 60_000;
  for (let i = 2000; i < 3000; i++) scene.fail(word(i));
  assert.equal(scene.lines.length, 33, 'each of a thousand letters and more is the same reason');
  scene.fail('another');
  assert.equal(scene.lines.length, 34);
});
