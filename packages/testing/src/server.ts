import { mkdirSync, rmSync } from 'node:fs';
import { type Process, startProcess } from './process.ts';
import { temporaryFolder } from './temporary.ts';

export interface ServerDefinition {
  readonly command: string;
  readonly port: number;
  /** Asked at each start: what a server needs may depend on what its data folder holds. */
  args(folder: string): readonly string[] | Promise<readonly string[]>;
  /** Resolves when the server answers. Rejecting fails the start. */
  ready(process: Process): Promise<unknown>;
}

/**
 * A real server on one port for its whole life, with its data in a temporary folder. Disposing ends
 * it and removes the folder.
 */
export class Server implements AsyncDisposable {
  readonly port: number;
  readonly #definition: ServerDefinition;
  readonly #folder = temporaryFolder();
  readonly #outputs: string[] = [];
  #process: Process | undefined;

  constructor(definition: ServerDefinition) {
    this.port = definition.port;
    this.#definition = definition;
  }

  get running(): boolean {
    return this.#process !== undefined && !this.#process.ended;
  }

  get pid(): number {
    if (!this.#process) throw new Error(`${this.#definition.command} is not running`);
    return this.#process.pid;
  }

  /** What it printed, over all its starts. */
  output(): string {
    return [...this.#outputs, this.#process?.output() ?? ''].join('\n');
  }

  /** Spawns it without waiting for it to answer: members of a cluster answer only together. */
  async launch(): Promise<() => Promise<unknown>> {
    if (this.running) throw new Error(`${this.#definition.command} is running already`);
    const { command } = this.#definition;
    const started = await startProcess(command, await this.#definition.args(this.#folder), { cwd: this.#folder });
    this.#process = started;
    return () => this.#definition.ready(started);
  }

  async start(): Promise<void> {
    const ready = await this.launch();
    await ready();
  }

  /**
   * SIGKILL unless another signal is named; resolves when it is gone (SIGSTOP, SIGCONT: at once).
   */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await this.#process?.kill(signal);
    this.#forget();
  }

  /** SIGTERM, and waits. */
  async stop(): Promise<void> {
    await this.#process?.stop();
    this.#forget();
  }

  /** Kills it if it runs and starts it on the same port, with its data or without. */
  async restart(options: { wipe?: boolean } = {}): Promise<void> {
    await this.kill();
    if (options.wipe) this.wipe();
    await this.start();
  }

  /** Removes all data of a server that does not run. */
  wipe(): void {
    if (this.running) throw new Error('a running server cannot be wiped: kill it first');
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #forget(): void {
    if (!this.#process?.ended) return;
    this.#outputs.push(this.#process.output());
    this.#process = undefined;
  }
}
