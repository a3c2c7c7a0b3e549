import { readFile, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { FileBooks } from './file-books.ts';
import type { Metrics } from './metrics.ts';
import { decodedText } from './regular-file.ts';

/**
 * What a look at a file found; `others` are the texts of the files that it names, by their paths.
 */
export type Finding =
  | { readonly text: string; readonly others?: ReadonlyMap<string, string> }
  | 'missing'
  | { readonly unreadable: string };

/**
 * What a text says, or why it cannot be used: no mistake repeats a value, which may be a secret.
 * @param other gives the text of a file that this one names; it throws for one that `others` of the
 * parts did not name
 */
export type ReadText<Value> = (
  text: string,
  other: (path: string) => string,
) => { readonly value: Value } | { readonly mistake: string };

export interface FileState<Value> {
  readonly value: Value;
  /** Texts taken so far; 0: none yet. */
  readonly generation: number;
  /** Why the file as it is now is not in effect; undefined when it is, or has never been there. */
  readonly mistake: string | undefined;
  /** What is in effect, and what was found last. */
  readonly taken: Finding;
  readonly found: Finding;
}

/** The state before the first look. */
export function unread<Value>(value: Value): FileState<Value> {
  return { value, generation: 0, mistake: undefined, taken: 'missing', found: 'missing' };
}

/** The state of a file that was read before it is followed. */
function alreadyRead<Value>(value: Value, taken: Finding): FileState<Value> {
  return { value, generation: 1, mistake: undefined, taken, found: taken };
}

/**
 * The state after a look at the file; the same object when nothing is new. What cannot be used
 * leaves the last good value in effect.
 */
export function look<Value>(state: FileState<Value>, found: Finding, read: ReadText<Value>): FileState<Value> {
  return sameFinding(state.found, found) ? state : lookAgain(state, found, read);
}

/**
 * The state after a look at what may have been found before: files that it depends on may be others
 * by now.
 */
function lookAgain<Value>(state: FileState<Value>, found: Finding, read: ReadText<Value>): FileState<Value> {
  if (found === 'missing') {
    return { ...state, found, mistake: state.generation === 0 ? undefined : 'the file is gone' };
  }
  if ('unreadable' in found) return { ...state, found, mistake: `the file cannot be read: ${found.unreadable}` };
  if (sameFinding(state.taken, found)) return { ...state, found, mistake: undefined };
  const result = read(found.text, (path) => {
    const text = found.others?.get(path);
    if (text === undefined) throw new Error(`${path} was not read`);
    return text;
  });
  if ('mistake' in result) return { ...state, found, mistake: result.mistake };
  const { value } = result;
  return { value, generation: state.generation + 1, mistake: undefined, taken: found, found };
}

function sameFinding(a: Finding, b: Finding): boolean {
  if (typeof a === 'string' || typeof b === 'string') return a === b;
  if ('text' in a) return 'text' in b && a.text === b.text && sameTexts(a.others, b.others);
  return 'unreadable' in b && a.unreadable === b.unreadable;
}

function sameTexts(a: ReadonlyMap<string, string> | undefined, b: ReadonlyMap<string, string> | undefined): boolean {
  if ((a?.size ?? 0) !== (b?.size ?? 0)) return false;
  for (const [path, text] of a ?? []) if (b?.get(path) !== text) return false;
  return true;
}

/** The file and those that it names. */
async function lookAtAll(
  path: string,
  maxBytes: number,
  others: (text: string) => readonly string[],
): Promise<Finding> {
  const found = await lookAt(path, maxBytes);
  if (found === 'missing' || 'unreadable' in found) return found;
  const texts = new Map<string, string>();
  for (const other of others(found.text).slice(0, maxOthers)) {
    const named = await lookAt(other, maxBytes);
    if (named === 'missing') return { unreadable: `${other} is missing` };
    if ('unreadable' in named) return { unreadable: `${other}: ${named.unreadable}` };
    texts.set(other, named.text);
  }
  return { text: found.text, others: texts };
}

/**
 * Opened by its path each time: a symlink on the way may lead elsewhere by now, as in Kubernetes'
 * mounts.
 */
async function lookAt(path: string, maxBytes: number): Promise<Finding> {
  try {
    const stats = await stat(path);
    if (!stats.isFile()) return { unreadable: 'it is not a file' };
    if (stats.size > maxBytes) return { unreadable: `it is larger than ${maxBytes} bytes` };
    return { text: decodedText(await readFile(path)) };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'missing' : { unreadable: code };
  }
}

/** So long a file must stay as it is before a change of it counts. */
const settleMs = 20;
/** Files that one names. */
const maxOthers = 1000;
const noOthers = () => [];

/** What of a logger is used. */
interface FollowLog {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
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
  /** What `initial` was read from, when the file was read before. */
  readonly initialFinding?: Finding;
  /**
   * The paths of further files that a text names, whose texts are followed with it. Must not throw.
   */
  readonly others?: (text: string) => readonly string[];
  /**
   * They are one whole, written one after the other: a mistake counts once two looks in a row found
   * the same.
   */
  readonly isWrittenInParts?: boolean;
  /**
   * `read` reads further files by itself: a text that it refused is read again at each look, as
   * they may be corrected meanwhile.
   */
  readonly readsFurtherFiles?: boolean;
  readonly read: ReadText<Value>;
  /** Is called with each new value, which is in effect from then on. */
  readonly onChange: (value: Value) => void;
  /** What the log line of a new value says of it. */
  readonly shown: (value: Value) => object;
  readonly log: FollowLog;
  readonly metrics: Metrics;
}

/**
 * Follows a file while the process runs: by its content, through swapped symlinks. A file that
 * cannot be used leaves the last good value in effect, is logged once and counted.
 */
export class FollowedFile<Value> implements Disposable {
  readonly #parts: FollowedFileParts<Value>;
  readonly #books: FileBooks;
  readonly #timer: NodeJS.Timeout;
  #state: FileState<Value>;
  /** A mistake that waits for the rest of what is being written. */
  #doubtful: FileState<Value> | undefined;
  #reading: Promise<void> | undefined;
  #loggedMistake: string | undefined;

  constructor(parts: FollowedFileParts<Value>) {
    this.#parts = parts;
    const { initial, initialFinding } = parts;
    this.#state = initialFinding === undefined ? unread(initial) : alreadyRead(initial, initialFinding);
    this.#books = FileBooks.of(parts);
    this.#books.begin(this, parts.path, initialFinding !== undefined);
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
    const {
      path,
      maxBytes,
      read,
      others = noOthers,
      isWrittenInParts = false,
      readsFurtherFiles = false,
    } = this.#parts;
    const before = this.#state;
    const found = await lookAtAll(path, maxBytes, others);
    if (sameFinding(before.found, found) && !(readsFurtherFiles && before.mistake !== undefined)) {
      this.#doubtful = undefined;
      return;
    }
    // Whoever writes it may be half way: what changes still is left for the next look.
    await delay(settleMs, undefined, { ref: false });
    if (!sameFinding(found, await lookAtAll(path, maxBytes, others))) return;
    const after = lookAgain(before, found, read);
    if (isWrittenInParts && after.mistake !== undefined) {
      const doubtful = this.#doubtful;
      this.#doubtful = after;
      if (doubtful?.mistake !== after.mistake || !sameFinding(doubtful.found, found)) return;
    }
    this.#doubtful = undefined;
    this.#state = after;
    if (after.mistake !== undefined) {
      const isNew = after.mistake !== before.mistake || !sameFinding(before.found, found);
      if (isNew) this.#mistaken(after.mistake);
      return;
    }
    this.#loggedMistake = undefined;
    if (after.generation !== before.generation) this.#reloaded(after);
  }

  #reloaded({ value }: FileState<Value>): void {
    const { what, shown, onChange, log } = this.#parts;
    if (this.#tells) {
      this.#books.taken();
      log.info({ generation: this.#books.generation, ...shown(value) }, `${what} in effect`);
    }
    onChange(value);
  }

  #mistaken(mistake: string): void {
    if (!this.#tells) return;
    const { path, what, log } = this.#parts;
    this.#books.mistaken();
    if (mistake === this.#loggedMistake) return;
    this.#loggedMistake = mistake;
    log.error(
      { path, mistake, generation: this.#books.generation },
      `${what} file cannot be used; keeping the one in effect`,
    );
  }

  /** Of several followers of a file in one process, only the first logs and counts. */
  get #tells(): boolean {
    return this.#books.followers.values().next().value === this;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#books.followers.delete(this);
  }
}
