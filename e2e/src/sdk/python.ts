import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findBinary } from '@llm-gateway/testing';

const run = promisify(execFile);

/**
 * Runs a script with exactly these packages of PyPI, and gives what it printed. They are installed
 * once, into a cache folder.
 */
export async function runPython(script: string, args: readonly string[], packages: readonly string[]): Promise<string> {
  const python = await findBinary('python3');
  const folder = await installed(python, packages);
  const { stdout } = await run(python, [script, ...args], {
    env: { ...process.env, PYTHONPATH: folder, NO_PROXY: '*' },
    timeout: 60_000,
    maxBuffer: 16 << 20,
  });
  return stdout;
}

async function installed(python: string, packages: readonly string[]): Promise<string> {
  const { stdout: version } = await run(python, ['--version']);
  const key = createHash('sha256')
    .update([version, ...packages].join('\n'))
    .digest('hex')
    .slice(0, 12);
  const folder = join(homedir(), '.cache', 'llm-gateway-e2e', `python-${key}`);
  if (existsSync(folder)) return folder;
  await findBinary('pip3');
  // Whole or not there, also when this is interrupted.
  const partial = `${folder}.${process.pid}`;
  await mkdir(partial, { recursive: true });
  const install = [
    '-m',
    'pip',
    'install',
    '--quiet',
    '--disable-pip-version-check',
    '--no-compile',
    '--target',
    partial,
  ];
  await run(python, [...install, ...packages], { timeout: 240_000 });
  await rename(partial, folder).catch(() => rm(partial, { recursive: true, force: true }));
  return folder;
}
