import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { temporaryFolder } from '@llm-gateway/testing';

/**
 * A folder with the files of a ConfigMap or Secret, changed as the kubelet does: all at once, by
 * one rename of a symbolic link.
 */
export class MountedFolder {
  readonly path = temporaryFolder();
  #current: string | undefined;

  constructor(files: Readonly<Record<string, string>>) {
    this.write(files);
    for (const name of Object.keys(files)) symlinkSync(join('..data', name), join(this.path, name));
  }

  /** The files must have the names of those there are. */
  write(files: Readonly<Record<string, string>>): void {
    const before = this.#current;
    this.#current = mkdtempSync(`${this.path}/..data-`);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.#current, name), text);
    symlinkSync(basename(this.#current), `${this.path}/..new`);
    renameSync(`${this.path}/..new`, `${this.path}/..data`);
    if (before !== undefined) rmSync(before, { recursive: true });
  }
}
