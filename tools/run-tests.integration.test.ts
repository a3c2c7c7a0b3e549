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
  suite(['the runner of tests', ...flags].join(' '), () => {
    test('runs a file with a failed test once more, lists what passes only then, and fails when that repeats', () => {
      using checkout = new Checkout({ 'a.test.mjs': steady, 'b.test.mjs': unsteady });
      const first = checkout.run(...flags);
      assert.equal(first.status, 0, first.output);
      assert.match(first.output, /=== ONCE MORE, ALONE ===\nb\.test\.mjs\n\n/);
      assert.match(first.output, /=== PASSED THE SECOND TIME ONLY .*\nb\.test\.mjs\tis unsteady\n/);
      assert.doesNotMatch(first.output, /NOT FOR THE FIRST TIME/);
      assert.equal(checkout.unsteady, 'b.test.mjs\tis unsteady\n');

      rmSync(join(checkout.folder, 'seen'));
      const again = checkout.run(...flags);
      assert.equal(again.status, 1, again.output);
      assert.match(again.output, /=== NOT FOR THE FIRST TIME ===\nb\.test\.mjs\tis unsteady\n/);
      assert.equal(checkout.unsteady, 'b.test.mjs\tis unsteady\n', 'it is listed once');

      const steadily = checkout.run(...flags);
      assert.equal(steadily.status, 0, steadily.output);
      assert.doesNotMatch(steadily.output, /ONCE MORE/);
    });

    test('fails when a test fails both times, or a file cannot be loaded, and lists neither', () => {
      const broken = "test('is broken', () => { throw new Error('always'); });\n";
      const files = { 'a.test.mjs': broken, 'b.test.mjs': "import './nothing.mjs';\n", 'c.test.mjs': steady };
      using checkout = new Checkout(files);
      const { status, output } = checkout.run(...flags);
      assert.equal(status, 1, output);
      assert.match(output, /=== ONCE MORE, ALONE ===\na\.test\.mjs\nb\.test\.mjs\n\n/);
      assert.equal(checkout.unsteady, '');
    });
  });
}

test('the runner of tests fails when no file matches', () => {
  using checkout = new Checkout({});
  const { status, output } = checkout.run();
  assert.equal(status, 1, output);
  assert.match(output, /no file matches \*\.test\.mjs/);
});

test('the runner of tests fails when a process that files share breaks off', () => {
  using checkout = new Checkout({
    'a.test.mjs': "test('ends it', () => process.exit(0));\n",
    'b.test.mjs': steady,
  });
  const { status, output } = checkout.run('--shared');
  assert.equal(status, 1, output);
  assert.match(output, /BROKE OFF/);
});
