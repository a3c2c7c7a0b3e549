import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';

const runner = join(import.meta.dirname, 'run-tests.ts');

/** A folder of test files, which the runner runs as a checkout of its own. */
class Checkout implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'llm-gateway-runner-'));

  constructor(files: Readonly<Record<string, string>>) {
    for (const [name, body] of Object.entries(files)) {
      this.write(
        name,
        `import { existsSync, writeFileSync } from 'node:fs';\nimport { test } from 'node:test';\n${body}`,
      );
    }
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text);
  }

  run(...flags: readonly string[]): { readonly status: number | null; readonly output: string } {
    // The runner of this file marks its processes, and a runner does not start within another.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const args = [runner, ...flags, '*.test.mjs'];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: this.folder, env, encoding: 'utf8' });
    return { status, output: stdout + stderr };
  }

  get unsteady(): string {
    const file = join(this.folder, '.cache/unsteady-tests.txt');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const steady = "test('is steady', () => {});\n";
/** Fails while there is no file `seen`, which it writes. */
const unsteady = `test('is unsteady', () => {
  if (existsSync('seen')) return;
  writeFileSync('seen', '');
  throw new Error('the first time');
});\n`;

for (const flags of [[], ['--shared']]) {
  suite(['the runner of tests', ...flags].join(' '), { concurrency: 2 }, () => {
    test('ends with 0 when all pass, and runs no file twice', () => {
      using checkout = new Checkout({ 'a.test.mjs': steady, 'b.test.mjs': steady });
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 0, output);
      assert.equal(checkout.unsteady, '');
      assert.doesNotMatch(output, /ONCE MORE/);
    });

    test('runs a file with a failed test once more, and lists what passes only then', () => {
      using checkout = new Checkout({ 'a.test.mjs': steady, 'b.test.mjs': unsteady });
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 0, output);
      assert.equal(checkout.unsteady, 'b.test.mjs\tis unsteady\n');
      assert.match(output, /=== ONCE MORE, ALONE ===\nb\.test\.mjs\n\n/);
      assert.match(output, /=== PASSED THE SECOND TIME ONLY .*\nb\.test\.mjs\tis unsteady\n/);
    });

    test('fails when a test of the list passes only the second time again', () => {
      using checkout = new Checkout({ 'b.test.mjs': unsteady });
      assert.equal(checkout.run(...flags).status, 0);
      rmSync(join(checkout.folder, 'seen'));
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 1, output);
      assert.match(output, /=== NOT FOR THE FIRST TIME ===\nb\.test\.mjs\tis unsteady\n/);
      assert.equal(checkout.unsteady, 'b.test.mjs\tis unsteady\n', 'it is listed once');
      assert.equal(checkout.run(...flags).status, 0, 'it passes the first time');
    });

    test('fails when a test fails both times, which is not listed', () => {
      using checkout = new Checkout({ 'a.test.mjs': "test('is broken', () => { throw new Error('always'); });\n" });
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 1, output);
      assert.equal(checkout.unsteady, '');
    });

    test('fails when a file cannot be loaded', () => {
      using checkout = new Checkout({ 'a.test.mjs': steady, 'b.test.mjs': "import './nothing.mjs';\n" });
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 1, output);
      assert.equal(checkout.unsteady, '');
    });

    test('fails when no file matches', () => {
      using checkout = new Checkout({});
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 1, output);
      assert.match(output, /no file matches \*\.test\.mjs/);
    });
  });
}

test('a process that files of tests share and that breaks off is a failure', () => {
  using checkout = new Checkout({
    'a.test.mjs': "test('ends it', () => process.exit(0));\n",
    'b.test.mjs': steady,
  });
  const { status, output } = checkout.run('--shared');
  assert.equal(status, 1, output);
  assert.match(output, /BROKE OFF/);
});
