import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './temporary.ts';

/**
 * `node run-tests.ts PATTERN…`: the test runner over the files, two at a time, and then each file in which something failed once more, alone
 * and whole. Many tests hold real processes to deadlines, and a machine that does other work as well can break one; what fails again,
 * undisturbed, is a failure. What passed only the second time is seen in the output of both runs.
 */
const failed = join(temporaryFolder(), 'failed');

function run(concurrency: number, files: readonly string[]): number {
  const preloaded = ['--import', join(import.meta.dirname, 'deadline.ts')];
  const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout'].concat([
    `--test-reporter=${join(import.meta.dirname, 'failed-files.ts')}`,
    `--test-reporter-destination=${failed}`,
  ]);
  const flags = ['--test', `--test-concurrency=${concurrency}`, ...reporters];
  return spawnSync(process.execPath, [...preloaded, ...flags, ...files], { stdio: 'inherit' }).status ?? 1;
}

let status = run(2, process.argv.slice(2));
const again = [...new Set(readFileSync(failed, 'utf8').split('\n'))].filter((file) => file !== '');
if (status !== 0 && again.length > 0) {
  process.stdout.write(`\n=== ONCE MORE, ALONE ===\n${again.join('\n')}\n\n`);
  status = run(1, again);
}
process.exitCode = status;
