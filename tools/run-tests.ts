import { type StdioOptions, spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { endOfRun } from './failed-tests.ts';

/**
 * `node run-tests.ts [--shared] PATTERN…`: runs the files of tests, each in a process of its own,
 * two at a time. Each file in which a test failed is run once more, alone, because many tests hold
 * real processes to deadlines, which other work of the machine can break. A test that fails again
 * has failed. One that passed only the second time is added to `.cache/unsteady-tests.txt`; one
 * that is in there from an earlier run has failed as well. A pattern that no file matches ends it
 * with 1.
 *
 * With `--shared` a few processes share the files out among them: starting one takes longer than
 * most unit tests. The second time each file has a process of its own.
 */
const { values, positionals } = parseArgs({
  options: { shared: { type: 'boolean', default: false } },
  allowPositionals: true,
});
/** More than there are processors: much of what unit tests do is to wait. */
const sharedProcesses = 4;
const unsteadyFile = '.cache/unsteady-tests.txt';
// Half of what a process of ours takes to start is compiling; tests start hundreds. Kept by content.
const env = { NODE_COMPILE_CACHE: resolve('.cache/compiled'), ...process.env };

interface Outcome {
  readonly status: number;
  /** The tests that failed, as `FILE<tab>NAME`. */
  readonly failed: readonly string[];
  /** False: the process broke off, and not all tests have been run. */
  readonly complete: boolean;
}

async function run(files: readonly string[], options: { flags: readonly string[]; quiet?: boolean }): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'llm-gateway-tests-'));
  const list = join(folder, 'failed');
  const flags = [
    ...['--import', join(import.meta.dirname, 'deadline.ts'), '--test', ...options.flags],
    ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
    `--test-reporter=${join(import.meta.dirname, 'failed-tests.ts')}`,
    `--test-reporter-destination=${list}`,
  ];
  try {
    const stdio: StdioOptions = ['ignore', options.quiet ? 'pipe' : 'inherit', 'inherit'];
    const child = spawn(process.execPath, [...flags, ...files], { stdio, env });
    const ended = new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve(code ?? 1));
    });
    // In one piece, so that reports of processes that run at the same time stay whole.
    if (child.stdout) process.stdout.write(await text(child.stdout));
    const status = await ended;
    const lines = existsSync(list) ? linesOf(list) : [];
    return { status, failed: lines.filter((line) => line !== endOfRun), complete: lines.at(-1) === endOfRun };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The files in a few processes, neighbours in different ones: they are of a kind. */
async function runShared(files: readonly string[]): Promise<Outcome> {
  const shares = Array.from({ length: Math.min(sharedProcesses, files.length) }, (_, share) =>
    files.filter((_, at) => at % sharedProcesses === share),
  );
  const outcomes = await Promise.all(
    shares.map((share) => run(share, { flags: ['--test-isolation=none'], quiet: true })),
  );
  return {
    status: Math.max(...outcomes.map(({ status }) => status)),
    failed: outcomes.flatMap(({ failed }) => failed),
    complete: outcomes.every(({ complete }) => complete),
  };
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
files.sort();
const first = values.shared ? await runShared(files) : await run(files, { flags: ['--test-concurrency=2'] });
let { status } = first;
if (!first.complete) {
  process.stdout.write('\n=== A PROCESS OF TESTS BROKE OFF: not all tests have been run ===\n');
  status ||= 1;
} else if (status !== 0 && first.failed.length > 0) {
  const again = [...new Set(first.failed.map((line) => line.slice(0, line.indexOf('\t'))))];
  process.stdout.write(`\n=== ONCE MORE, ALONE ===\n${again.join('\n')}\n\n`);
  const second = await run(again, { flags: ['--test-concurrency=1'] });
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
