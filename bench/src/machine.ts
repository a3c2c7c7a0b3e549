import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { findBinary, nodePath } from '@llm-gateway/testing';
import type { Machine } from './results.ts';
import { portkeyVersion } from './targets/servers.ts';
import { program } from './workplace.ts';

/** Begins to watch the machine; the returned function tells what it is and how quiet it was. */
export function watchMachine(): () => Machine {
  const loadBefore = loadavg()[0] ?? Number.NaN;
  const before = cpuTicks(readFileSync('/proc/stat', 'utf8'));
  return () => {
    const after = cpuTicks(readFileSync('/proc/stat', 'utf8'));
    const list = cpus();
    return {
      cpu: list[0]?.model ?? 'unknown',
      cores: list.length,
      memoryGb: Math.round(totalmem() / 2 ** 30),
      kernel: `Linux ${release().split('-', 1)[0]}`,
      loadBefore,
      loadAfter: loadavg()[0] ?? Number.NaN,
      stolen: (after.stolen - before.stolen) / (after.all - before.all),
    };
  };
}

/** The first line of `/proc/stat`: user nice system idle iowait irq softirq steal. */
export function cpuTicks(stat: string): { stolen: number; all: number } {
  const [, ...ticks] = (stat.split('\n', 1)[0] ?? '').trim().split(/\s+/).map(Number);
  const counted = ticks.slice(0, 8);
  return { stolen: counted[7] ?? 0, all: counted.reduce((sum, each) => sum + each, 0) };
}

export async function versions(): Promise<Record<string, string>> {
  return {
    'Node.js': versionIn([nodePath, '--version']),
    nginx: versionIn([program('nginx'), '-v']),
    HAProxy: versionIn([program('haproxy'), '-v']),
    'Portkey gateway': portkeyVersion,
    'nats-server': versionIn([await findBinary('nats-server'), '--version']),
    wrk: versionIn([program('wrk'), '-v']),
  };
}

/**
 * The first thing that looks like a version in what a program prints, wherever it prints it and
 * however it ends.
 */
function versionIn([command, ...args]: readonly [string, ...string[]]): string {
  const output = execFileSync('sh', ['-c', '"$0" "$@" 2>&1; :', command, ...args], { encoding: 'utf8' });
  return /\d+\.\d+[\w.+-]*/.exec(output)?.[0] ?? 'unknown';
}

/** The commit that is checked out; `+` behind it when something that is measured is not in it. */
export function commit(): string {
  const git = (...args: string[]) =>
    execFileSync('git', args, {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    const changed = git(
      'status',
      '--porcelain',
      '--untracked-files=no',
      '--',
      ':/packages',
      ':/services',
      ':/bench/src',
    );
    return git('rev-parse', '--short=10', 'HEAD') + (changed === '' ? '' : '+');
  } catch {
    return 'unknown';
  }
}
