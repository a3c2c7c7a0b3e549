import { readFileSync, statSync } from 'node:fs';

/**
 * The text of a file of at most `maxBytes`. Throws the error of the file system, or why it is not
 * read: what is no regular file, such as a pipe, might be waited for without end.
 */
export function readRegularFile(path: string, maxBytes: number): string {
  const stat = statSync(path);
  if (!stat.isFile()) throw new Error(`${path} is not a file`);
  if (stat.size > maxBytes) throw new Error(`${path} is larger than ${maxBytes} bytes`);
  return decodedText(readFileSync(path));
}

/** What a file says, without the byte order mark that some editors begin every file with. */
export function decodedText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
