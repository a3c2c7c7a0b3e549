import { LineCounter, parseDocument, visit } from 'yaml';
import names from './flag-names.json' with { type: 'json' };
import { nearest } from './nearest.ts';
import { flagTable, type OptionSpec, type ServiceFlags } from './option-table.ts';
import { readRegularFile } from './regular-file.ts';

/** A value as it was written, and where. */
export interface Written {
  readonly text: string;
  readonly source: string;
}

/** What a file says of the flags of one service. */
export interface ConfigLayer {
  readonly written: ReadonlyMap<string, Written>;
  readonly mistakes: readonly string[];
  /** Of the file; absent when it could not be read. */
  readonly text?: string;
}

export const maxConfigBytes = 4 * 1024 * 1024;
/**
 * Anchors may be used; a file of nothing but references to each other is an attempt to fill the
 * memory.
 */
const maxAliases = 100;

/** Reads the file of `--config`. What cannot be read is a mistake. */
export function readConfigFile(path: string, service: ServiceFlags): ConfigLayer {
  let text: string;
  try {
    text = readRegularFile(path, maxConfigBytes);
  } catch (error) {
    return { written: new Map(), mistakes: [unreadable(path, error)] };
  }
  return readConfigText(text, path, service);
}

/**
 * The flags that a text in YAML gives to a service: those at the top for every service that has
 * them, those below the name of a service for that one, which beat the others. A key that no
 * service has is a mistake. No mistake repeats a value.
 */
export function readConfigText(text: string, path: string, service: ServiceFlags): ConfigLayer {
  const written = new Map<string, Written>();
  const mistakes: string[] = [];
  const root = parsed(text, path, mistakes);
  const table = flagTable(service);
  const take = (section: Readonly<Record<string, unknown>>, at: string, own: boolean) => {
    for (const [key, value] of Object.entries(section)) {
      const spec = table.get(key);
      const source = `${path}: ${at}${key}`;
      if (key === 'config') mistakes.push(`${source}: a config file cannot name another one`);
      else if (spec === undefined && !(names.flags.includes(key) && !own))
        mistakes.push(unknown(source, key, table, own));
      else if (spec !== undefined && value !== null) {
        const read = textOf(value, spec);
        if ('text' in read) written.set(key, { text: read.text, source });
        else mistakes.push(`${source}: ${read.mistake}`);
      }
    }
  };
  const sections = Object.entries(root).filter(([key]) => names.services.includes(key));
  take(Object.fromEntries(Object.entries(root).filter(([key]) => !names.services.includes(key))), '', false);
  for (const [name, section] of sections) {
    if (section === null) continue;
    if (!isMapping(section)) mistakes.push(`${path}: ${name}: read ${kindOf(section)}, allowed: flags of the service`);
    else if (name === service.name) take(section, `${name}.`, true);
  }
  return { written, mistakes, text };
}

function parsed(text: string, path: string, mistakes: string[]): Readonly<Record<string, unknown>> {
  if (text.trim() === '') {
    mistakes.push(`${path}: the file is empty; write {} for no flags`);
    return {};
  }
  const lines = new LineCounter();
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    // Their messages quote the text around, which may be a secret.
    for (const { code, pos } of document.errors) {
      const { line, col } = lines.linePos(pos[0]);
      mistakes.push(
        `${path}: line ${line}, column ${col} is not valid YAML (${code.toLowerCase().replaceAll('_', ' ')})`,
      );
    }
    if (mistakes.length > 0) return {};
    visit(document, {
      Scalar(key, node) {
        const { value, source } = node;
        if (key !== 'key' && typeof value === 'number') node.value = new WrittenNumber(value, source ?? String(value));
      },
    });
    const value: unknown = document.toJS({ maxAliasCount: maxAliases });
    if (isMapping(value)) return value;
    mistakes.push(`${path}: read ${kindOf(value)}, allowed: a mapping of flags to values`);
  } catch (error) {
    mistakes.push(`${path}: not valid YAML (${aliasMistake(error)})`);
  }
  return {};
}

function aliasMistake(error: unknown): string {
  if (!(error instanceof ReferenceError)) return 'it cannot be read';
  return error.message.startsWith('Unresolved alias') ? 'an alias has no anchor before it' : 'too many aliases';
}

function unknown(source: string, key: string, table: ReadonlyMap<string, OptionSpec>, own: boolean): string {
  const near = nearest(key, own ? table.keys() : [...names.flags, ...names.services]);
  const who = own ? 'not a flag of this service' : 'not a flag of any service';
  return `${source}: ${who}, ${near === undefined ? 'see --help' : `did you mean ${near}?`}`;
}

/**
 * A number as it was written: `1e3` and `0x10` are refused as behind a flag. In rows it is the
 * number.
 */
class WrittenNumber {
  readonly #value: number;
  readonly source: string;

  constructor(value: number, source: string) {
    this.#value = value;
    this.source = source;
  }

  toJSON(): number {
    return this.#value;
  }
}

/** The value as it would stand behind the flag. */
function textOf(value: unknown, spec: OptionSpec): { readonly text: string } | { readonly mistake: string } {
  if (typeof value === 'string') return { text: value };
  if (spec.type !== 'string') {
    if (value instanceof WrittenNumber) return { text: value.source };
    return typeof value === 'boolean'
      ? { text: String(value) }
      : { mistake: `read ${kindOf(value)}, allowed: a ${spec.type}` };
  }
  if (Array.isArray(value)) {
    if (spec.list === 'rows') return { text: JSON.stringify(value) };
    if (spec.list === undefined) return { mistake: `read a list, allowed: a string` };
    const other = value.find((one) => typeof one !== 'string');
    if (other === undefined) return { text: value.join(',') };
    return { mistake: `read ${kindOf(other)} in a list, allowed: strings; write them in quotes` };
  }
  if (isMapping(value)) return { mistake: `read a mapping, allowed: ${allowedTexts(spec)}` };
  // 0123, 1e3 or yes would not come back as they were written.
  return { mistake: `read ${kindOf(value)}, allowed: a string; write it in quotes` };
}

function allowedTexts({ list }: { readonly list?: 'words' | 'rows' }): string {
  if (list === 'rows') return 'a list of rows, or a string';
  return list === 'words' ? 'a list of strings, or a string' : 'a string';
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof WrittenNumber);
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (value instanceof WrittenNumber) return 'a number';
  return typeof value === 'object' ? 'a mapping' : `a ${typeof value}`;
}

function unreadable(path: string, error: unknown): string {
  // The file itself, most likely, which may hold secrets.
  if (/[{[\n]/.test(path)) return '--config: allowed: the path of a file';
  return `--config: ${path} cannot be read: ${error instanceof Error ? error.message : error}`;
}
