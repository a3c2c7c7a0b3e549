import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { root } from './kustomize.ts';

const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8');
/** Of MIT, ISC, BSD and Apache alike: copies carry it. */
const isLicence = (path: string) => /^(licen[sc]e|notice|copying)/i.test(basename(path));

describe('the image', () => {
  it('keeps the licences of what is in it', () => {
    const [, find = ''] = /&& (find node_modules [^\n]+) -delete$/m.exec(dockerfile) ?? [];
    assert.notEqual(find, '');
    const files = (command: string) =>
      execFileSync('sh', ['-c', command], { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20 }).split('\n');
    const deleted = files(`${find} -print`);
    assert.ok(
      deleted.some((path) => path.endsWith('.md')),
      'pages are deleted',
    );
    assert.deepEqual(deleted.filter(isLicence), []);
    // Some have no other text than such a page.
    assert.ok(files('find node_modules -type f').includes('node_modules/ms/license.md'));
  });

  it('has our own licence, and is sent everything that is copied into it', () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources = '']) =>
      sources.split(' '),
    );
    const sent = readFileSync(join(root, '.dockerignore'), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('!'));
    assert.ok(copied.includes('LICENSE'));
    for (const source of copied) {
      assert.ok(
        sent.some((line) => source === line.slice(1) || source.startsWith(`${line.slice(1)}/`)),
        source,
      );
    }
  });
});
