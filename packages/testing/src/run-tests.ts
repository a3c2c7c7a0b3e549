import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { temporaryFolder } from './temporary.ts';

/**
 * `node run-tests.ts PATTERN…`: the test runner over the files, two at a time, and then what failed once more, alone. Many tests hold real
 * processes to deadlines, and a machine that does other work as well can break one; what fails again, undisturbed, is a failure. Tests that
 * passed only the second time are seen in the output of both runs.
 */
const patterns = process.argv.slice(2);
const state = join(temporaryFolder(), 'passed.json');

function run(concurrency: number): number {
  const flags = ['--test', `--test-concurrency=${concurrency}`, `--test-rerun-failures=${state}`];
  const preloaded = ['--import', join(import.meta.dirname, 'deadline.ts')];
  return spawnSync(process.execPath, [...preloaded, ...flags, ...patterns], { stdio: 'inherit' }).status ?? 1;
}

let status = run(2);
if (status !== 0) {
  process.stdout.write('\n=== ONCE MORE, ALONE: what failed above ===\n\n');
  status = run(1);
}
process.exitCode = status;
