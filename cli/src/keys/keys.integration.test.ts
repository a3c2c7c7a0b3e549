import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { nodePath, startProcess, temporaryFolder } from '@llm-gateway/testing';

const bin = join(import.meta.dirname, '../../bin/llm-gateway.js');

async function keys(...words: string[]) {
  await using child = await startProcess(nodePath, [bin, 'keys', ...words]);
  const { code } = await child.exited;
  return { code, lines: child.lines() };
}

describe('llm-gateway keys', { concurrency: 2 }, () => {
  it('makes a key whose row passes the check', async () => {
    const made = await keys('new', '--name', 'team-a', '--models', 'qwen*,llama', '--rpm', '60');
    const [key = '', row = ''] = made.lines;
    const hash = `sha256:${createHash('sha256').update(key).digest('hex')}`;
    assert.deepEqual(JSON.parse(row), { name: 'team-a', hash, models: ['qwen*', 'llama'], rpm: 60 });
    const file = join(temporaryFolder(), 'keys.json');
    writeFileSync(file, `{"keys":[${row}]}`);
    assert.deepEqual(await keys('check', file), { code: 0, lines: ['1 keys, no mistake'] });
  });

  it('adds rows to a file, and leaves one with a mistake as it is', async () => {
    const file = join(temporaryFolder(), 'keys.json');
    for (const name of ['a', 'b']) assert.equal((await keys('new', '--name', name, '--file', file)).code, 0);
    assert.deepEqual((await keys('check', file)).lines, ['2 keys, no mistake']);
    const before = readFileSync(file, 'utf8');
    const again = await keys('new', '--name', 'b', '--file', file);
    assert.equal(again.code, 64);
    assert.match(again.lines.join('\n'), /keys\[2\]\.name \(b\) is the name of another key/);
    assert.equal(readFileSync(file, 'utf8'), before);
    writeFileSync(file, '{"keys":');
    assert.equal((await keys('new', '--name', 'c', '--file', file)).code, 64);
    assert.equal(readFileSync(file, 'utf8'), '{"keys":');
  });

  it('names the mistakes of a file, and refuses a name that none can have', async () => {
    const file = join(temporaryFolder(), 'keys.json');
    writeFileSync(file, '{"keys":[{"name":"a","hash":"plain","rpm":-1}]}');
    const { code, lines } = await keys('check', file);
    assert.equal(code, 64);
    assert.match(lines.join('\n'), /keys\[0\]\.hash \(a\).*keys\[0\]\.rpm \(a\)/s);
    assert.equal((await keys('new', '--name', 'a b')).code, 64);
    writeFileSync(file, '{\n}}');
    for (const words of [
      ['check', file],
      ['new', '--name', 'a', '--file', file],
    ]) {
      const { code, lines } = await keys(...words);
      assert.equal(code, 64);
      assert.deepEqual(lines, [`llm-gateway keys ${words[0]}: ${file}: it is not valid JSON at line 2, column 2`]);
    }
    assert.equal((await keys('check', `${file}.gone`)).code, 64);
  });
});
