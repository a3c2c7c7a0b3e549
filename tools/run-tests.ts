import { spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

/**
 * `node run-tests.ts [--at-once N] PATTERN…`: runs the files of tests, two at a time or `N`. Each
 * file in which a test failed is run once more, alone, because many tests hold real processes to
 * deadlines, which other work of the machine can break. A test that fails again has failed. One
 * that passed only the second time is added to `.cache/unsteady-tests.txt`; one that is in there
 * from an earlier run has failed as well. A pattern that no file matches ends it with 1.
 */
const { values, positionals } = parseArgs({
  options: { 'at-once': { type: 'string', default: '2' } },
  allowPositionals: true,
});
const unsteadyFile = '.cache/unsteady-tests.txt';
// Half of what a process of ours takes to start is compiling; tests start hundreds. Kept by content.
const env = { NODE_COMPILE_CACHE: resolve('.cache/compiled'), ...process.env };

/** Runs the files, and gives the tests that failed, as `FILE<tab>NAME`. */
function run(concurrency: number, files: readonly string[]): { status: number; failed: readonly string[] } {
  const folder = mkdtempSync(join(tmpdir(), 'llm-gateway-tests-'));
  const list = join(folder, 'failed');
  const flags = [
    ...['--import', join(import.meta.dirname, 'deadline.ts')],
    ...['--test', `--test-concurrency=${concurrency}`],
    ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
    `--test-reporter=${join(import.meta.dirname, 'failed-tests.ts')}`,
    `--test-reporter-destination=${list}`,
  ];
  try {
    const status = spawnSync(process.execPath, [...flags, ...files], { stdio: 'inherit', env }).status ?? 1;
    return { status, failed: existsSync(list) ? linesOf(list) : [] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function linesOf(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '');
}

/** Keeps what passed only the second time; gives those that did so before. */
function keepUnsteady(tests: readonly string[]): readonly string[] {
  const before = existsSync(unsteadyFile) ? linesOf(unsteadyFile) : [];
  mkdirSync(dirname(unsteadyFile), { recursive: true });
  writeFileSync(unsteadyFile, [...new Set([...before, ...tests])].map((line) => `${line}\n`).join(''));
  return tests.filter((test) => before.includes(test));
}

const files = positionals.flatMap((pattern) => {
  const matching = globSync(pattern);
  if (matching.length === 0) {
    process.stderr.write(`no file matches ${pattern}\n`);
    process.exit(1);
  }
  return matching;
});
const first = run(Number(values['at-once']), files.sort());
let status = first.status;
if (status !== 0 && first.failed.length > 0) {
  const again = [...new Set(first.failed.map((line) => line.slice(0, line.indexOf('\t'))))];
  process.stdout.write(`\n=== ONCE MORE, ALONE ===\n${again.join('\n')}\n\n`);
  const second = run(1, again);
  status = second.status;
  const unsteady = first.failed.filter((test) => !second.failed.includes(test));
  if (unsteady.length > 0) {
    process.stdout.write(`\n=== PASSED THE SECOND TIME ONLY (${unsteadyFile}) ===\n${unsteady.join('\n')}\n`);
    const repeated = keepUnsteady(unsteady);
    if (repeated.length > 0) {
      process.stdout.write(`\n=== NOT FOR THE FIRST TIME ===\n${repeated.join('\n')}\n`);
      status ||= 1;
    }
  }
}
process.exitCode = status;
