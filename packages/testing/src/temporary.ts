import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(tmpdir(), 'llm-gateway-testing');
const prefix = `${process.pid}-`;
let swept = false;

/**
 * A new empty folder; removed when this process ends, or by a later test process if this one is
 * killed.
 */
export function temporaryFolder(): string {
  if (!swept) sweep();
  return mkdtempSync(join(root, prefix));
}

function sweep(): void {
  swept = true;
  mkdirSync(root, { recursive: true });
  for (const name of readdirSync(root)) {
    if (!isAlive(Number.parseInt(name, 10))) rmSync(join(root, name), { recursive: true, force: true });
  }
  process.on('exit', () => {
    for (const name of readdirSync(root)) {
      if (name.startsWith(prefix)) rmSync(join(root, name), { recursive: true, force: true });
    }
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
