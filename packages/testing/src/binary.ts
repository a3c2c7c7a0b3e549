import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

/** Debian's package for each program that tests run. */
const packages = {
  'nats-server': 'nats-server',
  'redis-server': 'redis-server',
  'redis-cli': 'redis-tools',
  etcd: 'etcd-server',
  etcdctl: 'etcd-client',
  openssl: 'openssl',
  python3: 'python3',
  pip3: 'python3-pip',
  chromium: 'chromium',
  prometheus: 'prometheus',
  promtool: 'prometheus',
} as const;

export type Binary = keyof typeof packages;

// Debian puts daemons where only root has them on PATH.
const extraFolders = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** The path of an executable on PATH or in the usual folders; undefined when there is none. */
export function findExecutable(name: string): string | undefined {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), ...extraFolders]) {
    if (folder === '') continue;
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/**
 * Finds a program, or as root installs its Debian package. Rejects with what to install when it can
 * do neither.
 */
export async function findBinary(name: Binary): Promise<string> {
  const found = findExecutable(name);
  if (found) return found;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || !findExecutable('apt-get') || !findExecutable('flock')) {
    throw new Error(`${name} is not installed; on Debian: apt-get install ${packages[name]}`);
  }
  await install(name);
  const installed = findExecutable(name);
  if (!installed) throw new Error(`apt-get installed ${packages[name]}, but there is still no ${name}`);
  return installed;
}

/**
 * All missing packages at once, by whichever test file comes first; the others wait at the lock and
 * find the work done. The lock is flock's, so it ends with its holder. While apt runs, policy-rc.d
 * forbids the packages to start the system's own server on its standard port: tests never use that
 * one, and it would outlive them.
 */
async function install(name: Binary): Promise<void> {
  const script = `
    set -e
    PATH=$PATH:${extraFolders.join(':')}
    command -v "$1" > /dev/null && exit 0
    shift
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
  `;
  const missing = Object.entries(packages).filter(([program]) => !findExecutable(program));
  const args = [
    join(tmpdir(), 'llm-gateway-apt.lock'),
    'sh',
    '-c',
    script,
    'sh',
    name,
    ...missing.map(([, debian]) => debian),
  ];
  try {
    await promisify(execFile)('flock', args, { maxBuffer: 64 << 20 });
  } catch (cause) {
    throw new Error(`could not install ${packages[name]} with apt-get`, { cause });
  }
}
