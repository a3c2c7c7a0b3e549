import { globSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

/** What the tests of the whole repository look at. */
export const root = join(import.meta.dirname, '..');

/** What git does not keep, by the two forms that .gitignore has here: `folder/` and `*.suffix`. */
const ignored = readFileSync(join(root, '.gitignore'), 'utf8').split('\n');
const foreignFolders = new Set([
  '.git',
  ...ignored.filter((line) => line.endsWith('/')).map((line) => line.slice(0, -1)),
]);
const foreignSuffixes = ignored.filter((line) => line.startsWith('*.')).map((line) => line.slice(1));

/** Paths from the root, with `/`. */
export function filesOf(pattern: string): string[] {
  return globSync(pattern, { cwd: root, exclude: (entry) => foreignFolders.has(entry.name), withFileTypes: true })
    .filter((entry) => entry.isFile() && !foreignSuffixes.some((suffix) => entry.name.endsWith(suffix)))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

export function textOf(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

export interface Manifest {
  readonly name: string;
  readonly license?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

/** The root or one of the workspaces. */
export interface Workspace {
  /** `packages/bus`; `.` is the root. */
  readonly folder: string;
  readonly manifest: Manifest;
}

export function workspaces(): Workspace[] {
  const manifests = [
    'package.json',
    ...['{packages,services}/*/package.json', '{cli,e2e,bench}/package.json'].flatMap(filesOf),
  ];
  return manifests.map((path) => ({
    folder: path === 'package.json' ? '.' : path.slice(0, -'/package.json'.length),
    manifest: JSON.parse(textOf(path)),
  }));
}

/**
 * The cells of the rows of every table in a page whose first cell is code, the code itself first.
 */
export function codeRows(page: string): string[][] {
  return page
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split(/(?<!\\)\|/).slice(1, -1))
    .map(([first = '', ...rest]) => [first.trim().replaceAll('`', ''), ...rest.map((cell) => cell.trim())]);
}
