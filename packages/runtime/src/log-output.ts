import { constants, fstatSync, openSync, write, writeSync } from 'node:fs';

/**
 * Lines are written together, at so many characters or after so long: a write for each costs more
 * than the line.
 */
const joinedChars = 65_536;
const flushDelayMs = 100;
/** A line more than what is joined fits nearly always. */
const maxEncodedChars = joinedChars + 4096;
/** Of UTF-8 for a code unit. */
const maxBytesPerChar = 3;
/** Held while the reader is slow; past it new lines are dropped. */
const maxHeldChars = 8 * 1024 * 1024;
/** A pipe that is full is tried again soon, because its reader may be fast, and then ever later. */
const firstRetryMs = 2;
const maxRetryMs = 500;
/**
 * After an error (disk full, no reader) what is held is dropped; what comes later is tried after
 * this.
 */
const errorPauseMs = 1000;
/** Longest wait for the reader when the process ends. */
const endTimeoutMs = 1000;
/** Between two tries while the process waits for its last lines. */
const endRetryMs = 5;

const newline = 0x0a;

/**
 * Lines that were not written, and why: the code of the error, or `blocked` when the reader was too
 * slow.
 */
export interface Dropped {
  readonly lines: number;
  readonly cause: string;
}

export interface LogOutputObserver {
  /** Lines were dropped. Called before the reader is back. */
  onDropped(lines: number): void;
  /** Lines are written again after some were dropped. */
  onResumed(dropped: Dropped): void;
}

interface Chunk {
  readonly text: string;
  readonly lines: number;
}

interface Writing {
  readonly bytes: Buffer;
  readonly lines: number;
  offset: number;
}

/**
 * Log lines on a file descriptor that the process never waits for. While the reader does not read,
 * lines are held, up to 8 Mi characters, and later ones dropped. When a write fails (full disk, I/O
 * error, closed pipe), what is held is dropped. Either way the lines are counted, and writing is
 * tried again for as long as the process lives: the log comes back when the disk has room or the
 * pipe a reader. While nothing is logged there is no timer.
 */
export class LogOutput {
  readonly #fd: number;
  /** Whether a write returns at once. Otherwise it is left to a thread, which it may block. */
  readonly #nonBlocking: boolean;
  readonly #observer: LogOutputObserver;
  readonly #chunks: Chunk[] = [];
  #text = '';
  #lines = 0;
  #heldChars = 0;
  #writing: Writing | null = null;
  /** What `#writing` is in. Made with the first line. */
  #buffer: Buffer | undefined;
  /** A thread has `#writing`. */
  #inThread = false;
  #timer: NodeJS.Timeout | null = null;
  /** `#timer` waits for the destination; nothing is written before. */
  #paused = false;
  #retryMs = firstRetryMs;
  /** The last line that was written lacks its end. */
  #cut = false;
  #dropped: Dropped = { lines: 0, cause: '' };
  /** Something was written after the last line that was dropped. */
  #recovered = false;
  #ended = false;
  #onEmpty: (() => void) | null = null;

  constructor(fd: number, observer: LogOutputObserver) {
    const opened = nonBlocking(fd);
    this.#fd = opened ?? fd;
    this.#nonBlocking = opened !== null;
    this.#observer = observer;
  }

  /** Takes a line with its newline. Never throws and never waits. */
  write(line: string): void {
    if (this.#ended || this.#heldChars + line.length > maxHeldChars) {
      this.#drop(1, 'blocked');
      return;
    }
    this.#text += line;
    this.#lines++;
    this.#heldChars += line.length;
    if (this.#text.length >= joinedChars) {
      this.#join();
      if (!this.#paused) this.#advance();
    } else if (this.#timer === null && !this.#inThread) {
      this.#wait(flushDelayMs);
    }
  }

  /**
   * Writes what is held and ends the process with `code`, within about a second whatever the reader
   * does. Where a write may block (a regular file) it needs the event loop for that, and returns. A
   * write that still hangs then ends the process by SIGKILL, because Node's exit waits for its
   * threads.
   */
  exit(code: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#join();
    if (this.#nonBlocking) {
      this.#writeOut();
      process.exit(code);
    }
    setTimeout(() => {
      if (this.#inThread) process.kill(process.pid, 'SIGKILL');
      else process.exit(code);
    }, endTimeoutMs);
    this.#onEmpty = () => process.exit(code);
    this.#advance();
  }

  #join(): void {
    if (this.#lines === 0) return;
    this.#chunks.push({ text: this.#text, lines: this.#lines });
    this.#text = '';
    this.#lines = 0;
  }

  #pause(ms: number): void {
    this.#paused = true;
    this.#wait(ms);
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#advance();
    }, ms).unref();
  }

  /** Writes what is held, until nothing is left or the reader must be waited for. */
  #advance(): void {
    if (this.#inThread) return;
    this.#join();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#paused = false;
    for (let writing = this.#next(); writing !== null; writing = this.#next()) {
      if (!this.#nonBlocking) {
        this.#writeInThread(writing);
        return;
      }
      const waitMs = this.#tryWrite(writing);
      if (waitMs > 0) {
        this.#pause(waitMs);
        return;
      }
    }
    this.#resumed();
    this.#onEmpty?.();
  }

  /** What is to be written next, or null. */
  #next(): Writing | null {
    if (this.#writing !== null) return this.#writing;
    const chunk = this.#chunks.shift();
    if (chunk === undefined) return null;
    this.#heldChars -= chunk.text.length;
    const bytes = this.#encoded(this.#cut ? `\n${chunk.text}` : chunk.text);
    this.#writing = { bytes, lines: chunk.lines, offset: 0 };
    return this.#writing;
  }

  /**
   * The text as UTF-8, in the one buffer that there is for it unless it is too long: one thing is
   * written at a time.
   */
  #encoded(text: string): Buffer {
    if (text.length > maxEncodedChars) return Buffer.from(text);
    this.#buffer ??= Buffer.allocUnsafeSlow(maxEncodedChars * maxBytesPerChar);
    return this.#buffer.subarray(0, this.#buffer.write(text));
  }

  /** Returns how long to wait before the next try; 0: go on. */
  #tryWrite(writing: Writing): number {
    try {
      return this.#wrote(writing, writeSync(this.#fd, writing.bytes, writing.offset));
    } catch (error) {
      return this.#failed(writing, error);
    }
  }

  #writeInThread(writing: Writing): void {
    this.#inThread = true;
    write(this.#fd, writing.bytes, writing.offset, null, null, (error, count) => {
      this.#inThread = false;
      const waitMs = error === null ? this.#wrote(writing, count) : this.#failed(writing, error);
      if (waitMs > 0 && !(this.#ended && this.#writing === null)) this.#pause(waitMs);
      // Fewer lines than a write is worth wait for more.
      else if (this.#lines > 0 && this.#writing === null && this.#chunks.length === 0) this.#wait(flushDelayMs);
      else this.#advance();
    });
  }

  /** Returns 0: the next may follow. */
  #wrote(writing: Writing, count: number): 0 {
    writing.offset += count;
    this.#retryMs = firstRetryMs;
    this.#recovered = true;
    if (writing.offset === writing.bytes.length) {
      this.#writing = null;
      this.#cut = false;
    }
    return 0;
  }

  /** Returns how long to wait before the next try. */
  #failed(writing: Writing, error: unknown): number {
    const code = errorCode(error);
    if (code === 'EAGAIN' || code === 'EINTR') {
      const waitMs = this.#retryMs;
      this.#retryMs = Math.min(this.#retryMs * 2, maxRetryMs);
      return waitMs;
    }
    if (writing.offset > 0) this.#cut = writing.bytes[writing.offset - 1] !== newline;
    this.#dropHeld(code);
    return errorPauseMs;
  }

  #dropHeld(cause: string): void {
    this.#join();
    let lines = this.#chunks.reduce((sum, chunk) => sum + chunk.lines, 0);
    if (this.#writing !== null) lines += unwritten(this.#writing);
    this.#writing = null;
    this.#chunks.length = 0;
    this.#heldChars = 0;
    if (lines > 0) this.#drop(lines, cause);
  }

  #drop(lines: number, cause: string): void {
    this.#dropped = { lines: this.#dropped.lines + lines, cause };
    this.#recovered = false;
    this.#observer.onDropped(lines);
  }

  #resumed(): void {
    if (this.#dropped.lines === 0 || !this.#recovered || this.#ended) return;
    const dropped = this.#dropped;
    this.#dropped = { lines: 0, cause: '' };
    this.#observer.onResumed(dropped);
  }

  /** Writes what is held, waiting for the reader for a second at most. */
  #writeOut(): void {
    const untilMs = performance.now() + endTimeoutMs;
    const clock = new Int32Array(new SharedArrayBuffer(4));
    for (let writing = this.#next(); writing !== null; writing = this.#next()) {
      if (performance.now() >= untilMs) return;
      if (this.#tryWrite(writing) > 0) Atomics.wait(clock, 0, 0, endRetryMs);
    }
  }
}

/** Lines of which the end is missing. */
function unwritten({ bytes, lines, offset }: Writing): number {
  if (offset === 0) return lines;
  let count = 0;
  for (let at = bytes.indexOf(newline, offset); at >= 0; at = bytes.indexOf(newline, at + 1)) count++;
  return count;
}

/**
 * A descriptor of what `fd` stands for that never blocks; null where there is none. It is opened
 * anew where the system lets us, because the non-blocking mode belongs to what is opened and is
 * shared with every process that inherited it: one of them may turn it off.
 */
function nonBlocking(fd: number): number | null {
  const is = fstatSync(fd);
  if (is.isFIFO() || is.isCharacterDevice()) {
    try {
      return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch {
      // Of another user, or no Linux.
    }
  }
  // Node's own stream makes a pipe or socket non-blocking when it is made. It is not written to.
  if (fd === 1 && (is.isFIFO() || is.isSocket()) && process.stdout.writable) return fd;
  return null;
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown';
}
