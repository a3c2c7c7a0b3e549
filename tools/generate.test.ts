import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { subjects } from '../packages/protocol/src/index.ts';
import { generated, schemaFolder } from './generate.ts';

const root = join(import.meta.dirname, '..');
const files = await generated();

for (const [path, text] of files) {
  test(`${path} is what npm run docs writes`, () => {
    // Not assert.equal: its difference of two long texts would bury the advice.
    assert.ok(readFileSync(join(root, path), 'utf8') === text, 'stale: npm run docs');
  });
}

test('the schema folder holds nothing else', () => {
  const there = globSync(`${schemaFolder}/**/*`, { cwd: root });
  assert.deepEqual(
    there.filter((path) => !files.has(path)),
    [],
  );
});

test('every subject of the bus has a published schema', () => {
  for (const subject of Object.values(subjects)) {
    const has = [subject, `${subject}.query`].some((name) => files.has(`${schemaFolder}/${name}.json`));
    assert.ok(has, subject);
  }
});

test('the page names every service that has options', () => {
  const page = files.get('docs/configuration.md') ?? '';
  for (const file of globSync('services/*/src/options.ts', { cwd: root })) {
    const name = basename(dirname(dirname(file)));
    assert.ok(page.includes(`- \`${name}\`:`), name);
  }
});
