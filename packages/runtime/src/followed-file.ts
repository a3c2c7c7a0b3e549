import { readFile, stat } from 'node:fs/promises';
import type { Logger } from 'pino';
import type { Metrics } from './metrics.ts';

/** What a look at a file found. */
export type Finding = { readonly text: string } | 'missing' | { readonly unreadable: string };

/** What a text says, or why it cannot be used: no mistake repeats a value, which may be a secret. */
export type ReadText<Value> = (text: string) => { readonly value: Value } | { readonly mistake: string };

export interface FileState<Value> {
  readonly value: Value;
  /** Texts taken so far; 0: none yet. */
  readonly generation: number;
  /** Why the file as it is now is not in effect; undefined when it is, or has never been there. */
  readonly mistake: string | undefined;
  /** The text in effect, and what was found last. */
  readonly text: string | undefined;
  readonly found: Finding;
}

/** The state before the first look. */
export function unread<Value>(value: Value): FileState<Value> {
  return { value, generation: 0, mistake: undefined, text: undefined, found: 'missing' };
}

/** The state after a look at the file; the same object when nothing is new. What cannot be used leaves the last good value in effect. */
export function look<Value>(state: FileState<Value>, found: Finding, read: ReadText<Value>): FileState<Value> {
  if (sameFinding(state.found, found)) return state;
  if (found === 'missing') {
    return { ...state, found, mistake: state.generation === 0 ? undefined : 'the file is gone' };
  }
  if ('unreadable' in found) return { ...state, found, mistake: `the file cannot be read: ${found.unreadable}` };
  if (found.text === state.text) return { ...state, found, mistake: undefined };
  const result = read(found.text);
  if ('mistake' in result) return { ...state, found, mistake: result.mistake };
  const { value } = result;
  return { value, generation: state.generation + 1, mistake: undefined, text: found.text, found };
}

function sameFinding(a: Finding, b: Finding): boolean {
  if (typeof a === 'string' || typeof b === 'string') return a === b;
  if ('text' in a) return 'text' in b && a.text === b.text;
  return 'unreadable' in b && a.unreadable === b.unreadable;
}

/** Opened by its path each time: a symlink on the way may lead elsewhere by now, as in Kubernetes' mounts. */
async function lookAt(path: string, maxBytes: number): Promise<Finding> {
  try {
    const stats = await stat(path);
    if (!stats.isFile()) return { unreadable: 'it is not a file' };
    if (stats.size > maxBytes) return { unreadable: `it is larger than ${maxBytes} bytes` };
    return { text: await readFile(path, 'utf8') };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'missing' : { unreadable: code };
  }
}

export interface FollowedFileParts<Value> {
  readonly path: string;
  readonly intervalMs: number;
  readonly maxBytes: number;
  /** What it is, as the log names it: `mirror config`. */
  readonly what: string;
  /** What the names of its metrics begin with: `mirror_config`. */
  readonly metric: string;
  /** In effect until the first text is taken. */
  readonly initial: Value;
  readonly read: ReadText<Value>;
  /** Is called with each new value, which is in effect from then on. */
  readonly onChange: (value: Value) => void;
  /** What the log line of a new value says of it. */
  readonly shown: (value: Value) => object;
  readonly log: Pick<Logger, 'info' | 'error'>;
  readonly metrics: Metrics;
}

/**
 * Follows a file while the process runs: by its content, through swapped symlinks. A file that cannot be used leaves the last
 * good value in effect, is logged once and counted.
 */
export class FollowedFile<Value> implements Disposable {
  readonly #parts: FollowedFileParts<Value>;
  readonly #errors;
  readonly #timer: NodeJS.Timeout;
  #state: FileState<Value>;
  #reading: Promise<void> | undefined;
  #loggedMistake: string | undefined;
  #reloadedAtSeconds = 0;
  #mistakenAtSeconds = 0;

  constructor(parts: FollowedFileParts<Value>) {
    this.#parts = parts;
    this.#state = unread(parts.initial);
    this.#errors = parts.metrics.counter({
      name: `${parts.metric}_errors_total`,
      help: `Times the ${parts.what} file turned into something that cannot be used`,
    });
    this.#declareGauges(parts);
    this.#timer = setInterval(() => void this.refresh(), parts.intervalMs).unref();
  }

  /** What is in effect. */
  get value(): Value {
    return this.#state.value;
  }

  /** Why the file as it is now is not in effect; undefined when it is, or has never been there. */
  get mistake(): string | undefined {
    return this.#state.mistake;
  }

  /** Looks at the file now. */
  refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    const { path, maxBytes, read } = this.#parts;
    const before = this.#state;
    const after = look(before, await lookAt(path, maxBytes), read);
    if (after === before) return;
    this.#state = after;
    if (after.mistake !== undefined) {
      this.#mistaken(after.mistake);
      return;
    }
    this.#loggedMistake = undefined;
    if (after.generation !== before.generation) this.#reloaded(after);
  }

  #reloaded({ value, generation }: FileState<Value>): void {
    const { what, shown, onChange, log } = this.#parts;
    this.#reloadedAtSeconds = Date.now() / 1000;
    log.info({ generation, ...shown(value) }, `${what} in effect`);
    onChange(value);
  }

  #mistaken(mistake: string): void {
    const { path, what, log } = this.#parts;
    this.#mistakenAtSeconds = Date.now() / 1000;
    this.#errors.inc();
    if (mistake === this.#loggedMistake) return;
    this.#loggedMistake = mistake;
    log.error({ path, mistake, generation: this.#state.generation }, `the ${what} file cannot be used`);
  }

  #declareGauges({ metric, what, metrics }: FollowedFileParts<Value>): void {
    const gauge = (name: string, help: string, collect: () => number) =>
      metrics.gauge({ name: `${metric}_${name}`, help, collect });
    gauge('generation', `Texts of the ${what} file taken since the start`, () => this.#state.generation);
    gauge('valid', `0 while the ${what} file cannot be used and the last good one stays`, () =>
      Number(this.#state.mistake === undefined),
    );
    gauge(
      'last_reload_timestamp_seconds',
      `When a text of the ${what} file was taken last; 0: never`,
      () => this.#reloadedAtSeconds,
    );
    gauge(
      'last_error_timestamp_seconds',
      `When the ${what} file was last found unusable; 0: never`,
      () => this.#mistakenAtSeconds,
    );
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
