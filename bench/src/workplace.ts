import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findExecutable, type Process, startProcess, temporaryFolder, until } from '@llm-gateway/testing';

/** Debian's package of each program that is started beside Node.js. */
const packages = { nginx: 'nginx-light', haproxy: 'haproxy', wrk: 'wrk' } as const;

export function program(name: keyof typeof packages): string {
  const path = findExecutable(name);
  if (path === undefined) throw new Error(`${name} is not installed; on Debian: apt-get install ${packages[name]}`);
  return path;
}

export interface Logged extends Process {
  /** Waits for something true of it. Rejects with what it printed when it ends before. */
  becomes<T>(condition: () => T | Promise<T>, what: string): Promise<NonNullable<T>>;
  /** The first match in what it has printed, now or later. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
}

/** LiteLLM imports for a quarter of a minute, on a machine that has nothing else to do. */
const startTimeoutMs = 120_000;

/**
 * A temporary folder for configurations, request bodies and logs. What runs under load prints to
 * files, as it would in production: a pipe to this process would make this process part of the
 * measurement.
 */
export class Workplace {
  readonly folder = temporaryFolder();

  file(name: string, content: string): string {
    const path = join(this.folder, name);
    writeFileSync(path, content);
    return path;
  }

  async start(
    name: string,
    command: readonly [string, ...string[]],
    options: { env?: Readonly<Record<string, string>>; cwd?: string } = {},
  ): Promise<Logged> {
    const log = this.file(`${name}.log`, '');
    const shell = ['-c', 'exec "$@" >> "$0" 2>&1', log, ...command];
    const started = await startProcess('sh', shell, { cwd: this.folder, ...options });
    const output = () => readFileSync(log, 'utf8');
    const becomes = async <T>(condition: () => T | Promise<T>, what: string) => {
      const found = await until(async () => started.ended || (await condition()), {
        timeoutMs: startTimeoutMs,
        what: `${name} ${what}`,
      });
      if (started.ended) throw new Error(`${name} ended:\n${output().slice(-4000)}`);
      return found as NonNullable<T>;
    };
    const printed = (pattern: RegExp) => becomes(() => pattern.exec(output()), `prints ${pattern}`);
    return Object.assign(started, { becomes, printed });
  }

  /** All are open for appending, so their writers go on at the start. */
  emptyLogs(): void {
    for (const name of readdirSync(this.folder)) if (name.endsWith('.log')) truncateSync(join(this.folder, name));
  }
}
