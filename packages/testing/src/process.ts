import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { findExecutable } from './binary.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Oldest lines are forgotten past this, so that a chatty process under load does not fill the
 * test's memory.
 */
const maxLines = 200_000;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) signal(child, 'SIGKILL');
});

/** A child process with its output. Disposing kills it. */
export class Process implements AsyncDisposable {
  readonly pid: number;
  /** Settles when the process has ended and its output has been read to the end. */
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #lines: string[] = [];
  readonly #listeners = new Set<(line: string) => void>();
  #ended = false;

  constructor(child: ChildProcess, name: string) {
    if (child.pid === undefined) throw new Error(`${name} did not start`);
    this.pid = child.pid;
    this.#child = child;
    this.#name = name;
    running.add(child);
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface({ input: stream }).on('line', (line) => this.#add(line));
    }
    this.exited = once(child, 'close').then(([code, signal]) => {
      this.#ended = true;
      running.delete(child);
      return { code, signal };
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Lines of stdout and stderr in the order they came. */
  lines(): readonly string[] {
    return this.#lines;
  }

  output(): string {
    return this.#lines.join('\n');
  }

  /**
   * The first line that matches, already printed or to come. Rejects with the output when the
   * process ends before.
   */
  async waitForLine(pattern: RegExp, options: { timeoutMs?: number } = {}): Promise<RegExpExecArray> {
    const { timeoutMs = 30_000 } = options;
    for (const line of this.#lines) {
      const match = pattern.exec(line);
      if (match) return match;
    }
    const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
    const listener = (line: string) => {
      const match = pattern.exec(line);
      if (match) resolve(match);
    };
    const fail = (why: string) => reject(new Error(`${this.#name}: ${why} ${pattern}\n${this.output()}`));
    const timer = setTimeout(() => fail(`no line within ${timeoutMs} ms matched`), timeoutMs);
    this.#listeners.add(listener);
    void this.exited.then(({ code, signal }) => fail(`ended (${signal ?? code}) before a line matched`));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#listeners.delete(listener);
    }
  }

  /**
   * Signals the process and its children; resolves when it has ended, for SIGSTOP and SIGCONT at
   * once.
   */
  async kill(name: NodeJS.Signals = 'SIGKILL'): Promise<Exit | undefined> {
    signal(this.#child, name);
    return name === 'SIGKILL' || name === 'SIGTERM' || name === 'SIGINT' ? await this.exited : undefined;
  }

  /** SIGTERM, and SIGKILL when that has not ended it after `timeoutMs`. */
  async stop(timeoutMs = 10_000): Promise<Exit> {
    const timer = setTimeout(() => signal(this.#child, 'SIGKILL'), timeoutMs);
    signal(this.#child, 'SIGTERM');
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) await this.kill();
  }

  #add(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > maxLines) this.#lines.splice(0, maxLines / 2);
    for (const listener of this.#listeners) listener(line);
  }
}

/** The group, not only its leader: a child's own children must go with it. */
function signal(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/**
 * Starts a program in a process group of its own. It sees the tests' environment without what is
 * meant for gateway services or for the test runner, and `env`. It dies with this process, even if
 * that is killed: the kernel sees to it (prctl PR_SET_PDEATHSIG, through setpriv; elsewhere than
 * Linux only an orderly exit does).
 */
export async function startProcess(
  command: string,
  args: readonly string[] = [],
  options: { env?: Readonly<Record<string, string>>; cwd?: string } = {},
): Promise<Process> {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('LLM_GATEWAY_') && name !== 'NODE_TEST_CONTEXT',
  );
  const setpriv = findExecutable('setpriv');
  const [file, ...rest] = setpriv ? [setpriv, '--pdeathsig', 'KILL', command, ...args] : [command, ...args];
  const child = spawn(file ?? command, rest, {
    cwd: options.cwd,
    detached: true,
    env: { ...Object.fromEntries(inherited), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await once(child, 'spawn');
  return new Process(child, [command, ...args].join(' '));
}
