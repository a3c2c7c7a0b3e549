import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printable } from './printable.ts';

test('what a terminal would obey is shown, and JSON stays what it was', () => {
  assert.equal(printable('engine-1 läuft\tgut\n→ 模型'), 'engine-1 läuft\tgut\n→ 模型');
  assert.equal(printable('\x1b[2Jgone\r\x07\x9b31m\x7f'), '\\u001b[2Jgone\\u000d\\u0007\\u009b31m\\u007f');
  assert.equal(printable('a\u202eb\u2066c'), 'a\\u202eb\\u2066c');
  const value = { name: 'a\x9b31m\x7f\u202e' };
  assert.deepEqual(JSON.parse(printable(JSON.stringify(value))), value);
});
