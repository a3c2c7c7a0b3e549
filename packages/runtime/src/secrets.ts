import { readRegularFile } from './regular-file.ts';

/**
 * The value of a secret option that is read anew: from its file as it is now, or as it was given.
 */
export type SecretReader = () => string;

/** A route config with keys is the largest of them. */
const maxFileBytes = 1 << 20;
/** Shorter values would be found in harmless words. */
export const minHiddenLength = 4;
/** A longer value, such as a route config, stands in no URL. */
const maxEncodedLength = 4096;
/**
 * Earlier values of one file that are still hidden: an error that holds one may be logged after the
 * rotation.
 */
const maxRemembered = 8;

/** The secrets of a process: what hides them in its log, and reads those that are in files. */
export class Secrets {
  /** By flag, the newest value last. */
  readonly #known = new Map<string, string[]>();
  /** The longest first: one may be a part of another. */
  #plain: readonly string[] = [];
  /** As they stand inside a JSON string. */
  #hidden: readonly string[] = [];
  /**
   * Receives why a file that was read before cannot be read now. The process goes on with the value
   * it had.
   */
  onUnreadable: (flag: string, error: Error) => void = () => undefined;

  /**
   * Hides a value from now on, also as a URL has it, and of a header such as `Bearer KEY` the
   * credential alone.
   */
  add(flag: string, value: string): void {
    const values = this.#known.get(flag) ?? [];
    if (values.at(-1) === value) return;
    const others = values.filter((one) => one !== value);
    this.#known.set(flag, [...others, value].slice(-maxRemembered));
    this.#plain = [...new Set([...this.#known.values()].flat().flatMap(formsOf))]
      .filter((one) => one.length >= minHiddenLength)
      .sort((a, b) => b.length - a.length);
    this.#hidden = this.#plain.map((one) => JSON.stringify(one).slice(1, -1));
  }

  /** A log line without any of them. */
  hide(line: string): string {
    return without(line, this.#hidden);
  }

  /** A text without any of them, which need not be JSON. */
  hideIn(text: string): string {
    return without(text, this.#plain);
  }

  /**
   * A reader of the file at `path` for `flag`, whose value was `first`. When it cannot be read it
   * returns the last value.
   */
  reader(flag: string, path: string, first: string): SecretReader {
    let last = first;
    return () => {
      try {
        last = readSecretFile(path);
        this.add(flag, last);
      } catch (error) {
        this.onUnreadable(flag, error instanceof Error ? error : new Error(String(error)));
      }
      return last;
    };
  }
}

function without(text: string, hidden: readonly string[]): string {
  return hidden.reduce((left, one) => left.replaceAll(one, '[redacted]'), text);
}

function formsOf(value: string): string[] {
  const credential = /^[A-Za-z]+ (\S{8,})$/.exec(value)?.[1];
  const isEncodable = value.length <= maxEncodedLength && value.isWellFormed();
  return [
    value,
    ...(isEncodable ? [encodeURIComponent(value)] : []),
    ...(credential === undefined ? [] : [credential]),
  ];
}

/**
 * What the file holds, without the newline at its end. Throws when it cannot be read, holds
 * nothing, or is no secret's size.
 */
export function readSecretFile(path: string): string {
  const text = readRegularFile(path, maxFileBytes);
  // Emptied by accident, most likely: without the secret everybody might be let in.
  if (text.trim() === '') throw new Error(`${path} is empty`);
  return text.replace(/\r?\n$/, '');
}

/** Throws when a file that a flag names cannot be read. */
export function checkReadable(path: string): void {
  readRegularFile(path, maxFileBytes);
}
