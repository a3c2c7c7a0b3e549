import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, posix } from 'node:path';
import { suite, test } from 'node:test';
import { filesOf, root, textOf } from './repository.ts';

const paths = filesOf('{*,.*,**/*,**/.*,.*/**}');
/**
 * What people and tools read as text; a file with a zero byte is none. This one spells what it
 * looks for.
 */
const texts = paths
  .filter((path) => path !== 'tools/repository.test.ts')
  .map((path) => ({ path, text: textOf(path) }))
  .filter(({ text }) => !text.includes('\0'));

function assertNowhere(pattern: RegExp, why: string): void {
  const found = texts.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
  assert.deepEqual(found, [], why);
}

suite('no file of the repository', () => {
  test('names a folder of the machine it was written on', () => {
    assertNowhere(/(?<![\w.~-])\/(?:home|Users)\/[\w.-]+\//, 'a path below a home folder');
    // In an image there is a root user, whose cache is mounted while it is built.
    assertNowhere(/(?<!target=)(?<![\w.~-])\/root\//, "a path below root's folder");
    // One name alone, as `/app`, may be meant inside an image.
    if (root.split('/').length > 2)
      assertNowhere(new RegExp(`${RegExp.escape(root)}(?![\\w-])`), 'the path of this checkout');
  });

  test('names a host that packages come from: where they do is for the user of npm to say', () => {
    assertNowhere(/\bregistry\.[a-z0-9-]+\.[a-z]{2,}|\bnpmjs\.org\b|\byarnpkg\.com\b/i, 'a registry');
    const registry = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8', stdio: 'pipe' });
    assertNowhere(new RegExp(RegExp.escape(new URL(registry).host)), 'the registry of this machine');
  });

  test('is left with a conflict', () => {
    assertNowhere(/^(?:<{7}|>{7})(?: |$)/, 'a conflict');
  });
});

suite('no test', () => {
  const tests = texts.filter(({ path }) => path.endsWith('.test.ts'));

  test('is skipped, put off or run alone', () => {
    const pattern = /\b(?:test|it|describe|suite)\.(?:only|skip|todo)\b|\b(?:only|skip|todo): true\b/;
    assert.deepEqual(
      tests.filter(({ text }) => pattern.test(text)).map(({ path }) => path),
      [],
    );
  });

  // Whatever else runs on the machine breaks it. Limits in time live in bench.
  test('asserts that something took less than a few seconds', () => {
    const limit = /assert\.ok\([^;]*?(?:\b\w*[mM]s|performance\.now\(\) - [\w.]+) <=? (\d[\d_]*)(?=[,)]| &&)/g;
    const found = tests.flatMap(({ path, text }) =>
      [...text.matchAll(limit)]
        .filter(([, ms = '']) => Number(ms.replaceAll('_', '')) < 5000)
        .map(([assertion]) => `${path}: ${assertion}`),
    );
    assert.deepEqual(found, []);
  });
});

/** Files that pages speak of and that are no files of this repository. */
const notOurs = new Set(['/mnt/mirror.json']);

/** The anchors that GitHub gives the headings of a page. */
function anchorsOf(page: string): Set<string> {
  const headings = page.replaceAll(/^```.*?^```/gms, '').matchAll(/^#+ (.*)$/gm);
  const dashed = (text: string) =>
    text
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
  return new Set(Array.from(headings, ([, text = '']) => dashed(text)));
}

suite('links', () => {
  const pages = texts.filter(({ path }) => path.endsWith('.md'));

  for (const { path, text } of pages) {
    test(`of ${path} lead somewhere`, () => {
      const prose = text.replaceAll(/^```.*?^```/gms, '');
      for (const [, target = ''] of prose.matchAll(/(?:\]\(|(?:src|srcset|href)=")([^)"\s]+)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const [to = '', anchor] = target.split('#');
        const file = to === '' ? path : posix.join(posix.dirname(path), to);
        assert.ok(existsSync(join(root, file)), target);
        if (anchor !== undefined && file.endsWith('.md')) assert.ok(anchorsOf(textOf(file)).has(anchor), target);
      }
    });

    test(`${path} names only files of ours that exist`, () => {
      const named =
        /`((?:(?:packages|services|cli|tools|e2e|bench|docs|deploy)\/)?[\w./-]+\.(?:ts|js|proto|json|md|svg|ya?ml|conf))`/g;
      for (const [, file = ''] of text.matchAll(named)) {
        const exists = paths.some((one) => one === file || one.endsWith(`/${file.replace(/^(?:\.{1,2}\/)+/, '')}`));
        assert.ok(exists || notOurs.has(file), file);
      }
    });
  }
});
