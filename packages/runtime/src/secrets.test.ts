import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readSecretFile, Secrets } from './secrets.ts';

function folder(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'secrets-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

test('one newline at the end of a file is dropped, nothing else', () => {
  using at = folder();
  const file = join(at.path, 'secret');
  for (const [text, value] of [
    ['hunter', 'hunter'],
    ['hunter\n', 'hunter'],
    ['hunter\r\n', 'hunter'],
    [' hunter \n\n', ' hunter \n'],
  ] as const) {
    writeFileSync(file, text);
    assert.equal(readSecretFile(file), value);
  }
});

test('what is no file, or too large to be a secret, is refused', () => {
  using at = folder();
  assert.throws(() => readSecretFile(join(at.path, 'none')), /ENOENT/);
  assert.throws(() => readSecretFile(at.path), /is not a file/);
  const file = join(at.path, 'large');
  writeFileSync(file, Buffer.alloc((1 << 20) + 1));
  assert.throws(() => readSecretFile(file), /is larger than/);
});

test('a rotated value is read, and hidden as the one before it', () => {
  using at = folder();
  const file = join(at.path, 'secret');
  const secrets = new Secrets();
  secrets.add('key', 'first-value');
  const read = secrets.reader('key', file, 'first-value');
  writeFileSync(file, 'second-"value"\n');
  assert.equal(secrets.hide(JSON.stringify('second-"value"')), '"second-\\"value\\""');
  assert.equal(read(), 'second-"value"');
  assert.equal(secrets.hide(JSON.stringify('a second-"value" b first-value')), '"a [redacted] b [redacted]"');
});

test('a value is hidden as a URL has it, and of a header the credential alone', () => {
  const secrets = new Secrets();
  secrets.add('header', 'Bearer sk-of/the+header');
  secrets.add('short', 'to be');
  assert.equal(secrets.hide('got sk-of/the+header, to be'), 'got [redacted], [redacted]');
  assert.equal(secrets.hide('be'), 'be');
  secrets.add('key', 'a/b c');
  assert.equal(secrets.hide('http://h?k=a%2Fb%20c'), 'http://h?k=[redacted]');
});

test('a file that is gone leaves the last value, and is reported', () => {
  using at = folder();
  const file = join(at.path, 'secret');
  const secrets = new Secrets();
  const reports: string[] = [];
  secrets.onUnreadable = (flag, error) => reports.push(`${flag} ${error.message}`);
  writeFileSync(file, 'second\n');
  const read = secrets.reader('key', file, 'first');
  assert.equal(read(), 'second');
  rmSync(file);
  assert.equal(read(), 'second');
  assert.match(reports.join(), /^key ENOENT/);
});

test('the earlier values that are hidden are few', () => {
  const secrets = new Secrets();
  for (let i = 0; i < 100; i++) secrets.add('key', `value-${i}-end`);
  secrets.add('short', 'abc');
  assert.equal(secrets.hide('value-99-end value-92-end value-91-end abc'), '[redacted] [redacted] value-91-end abc');
});

test('a secret is hidden in a text that is no JSON, also where JSON would write it otherwise', () => {
  const secrets = new Secrets();
  secrets.add('key', 'a"quoted\\value');
  assert.equal(secrets.hideIn('read a"quoted\\value, allowed: none'), 'read [redacted], allowed: none');
  assert.equal(secrets.hide(JSON.stringify('a"quoted\\value')), '"[redacted]"');
});
