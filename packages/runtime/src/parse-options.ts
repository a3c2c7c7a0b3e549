import { helpText } from './help.ts';
import {
  allowedValues,
  camelCase,
  environmentName,
  flagTable,
  type OptionGroup,
  type OptionSpec,
  type OptionValue,
  type ServiceOptions,
  type ServiceValues,
  shownValue,
  wrongValue,
} from './option-table.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export type Parsed<Values> =
  | { readonly values: Values }
  | { readonly mistakes: readonly string[] }
  | { readonly help: string }
  | { readonly version: true };

/** A value as it was written, and where: `--port` or `LLM_GATEWAY_PORT`. */
interface Written {
  readonly text: string;
  readonly source: string;
}

/**
 * Reads the flags in `argv` (without node and the script) and the environment into typed values, or says everything that is wrong with them,
 * one line each, without any secret.
 *
 * `--flag value`, `--flag=value`; booleans also `--flag` and `--no-flag`. A value that begins with `--` needs the form with `=`.
 * A flag beats its environment variable; of a flag given more than once the last one counts, so that a wrapper's flags can be
 * overridden at the end of the line; an empty variable counts as absent.
 */
export function parseOptions<Groups extends readonly OptionGroup[]>(
  service: ServiceOptions<Groups>,
  argv: readonly string[],
  env: Environment,
): Parsed<ServiceValues<Groups>> {
  const table = flagTable(service);
  const line = readArguments(table, argv);
  if (line.asked === 'help') return { help: helpText(service) };
  if (line.asked === 'version') return { version: true };

  const mistakes = [...line.mistakes];
  const values: Record<string, OptionValue> = {};
  for (const [flag, spec] of table) {
    const written = line.written.get(flag) ?? fromEnvironment(flag, env);
    const read = written ? readValue(spec, written.text) : { value: spec.default };
    if ('value' in read) values[camelCase(flag)] = read.value;
    else if (written) mistakes.push(mistake(spec, written, read.wrong));
  }
  if (mistakes.length > 0) return { mistakes };

  // Each value was read by the specification that its type is inferred from.
  const typed = values as ServiceValues<Groups>;
  const crossed = service.check?.(typed) ?? [];
  return crossed.length > 0 ? { mistakes: crossed.map(oneLine) } : { values: typed };
}

function fromEnvironment(flag: string, env: Environment): Written | undefined {
  const source = environmentName(flag);
  const text = env[source];
  return text ? { text, source } : undefined;
}

interface CommandLine {
  readonly written: Map<string, Written>;
  readonly mistakes: string[];
  asked?: 'help' | 'version';
}

function readArguments(table: ReadonlyMap<string, OptionSpec>, argv: readonly string[]): CommandLine {
  const line: CommandLine = { written: new Map(), mistakes: [] };
  // A stray word after a secret or misspelt flag may be (the rest of) a secret.
  let mayBeSecret = false;
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? '';
    const equals = word.indexOf('=');
    const name = equals < 0 ? word : word.slice(0, equals);
    const inline = equals < 0 ? undefined : word.slice(equals + 1);
    const next = argv[at + 1];

    if (word === '--help' || word === '-h') line.asked = 'help';
    else if (word === '--version') line.asked ??= 'version';
    else if (!word.startsWith('-')) {
      line.mistakes.push(`${mayBeSecret ? 'a word' : JSON.stringify(shortened(word))} follows no flag that takes it`);
    } else {
      const flag = name.slice(2);
      const spec = name.startsWith('--') ? table.get(flag) : undefined;
      const negated =
        name.startsWith('--no-') && table.get(flag.slice(3))?.type === 'boolean' ? flag.slice(3) : undefined;
      mayBeSecret = spec ? spec.secret === true : negated === undefined;
      if (spec) {
        const text =
          inline ?? (takesNext(spec, next) ? argv[++at] : undefined) ?? (spec.type === 'boolean' ? 'true' : undefined);
        if (text === undefined) line.mistakes.push(`${name} needs a value: ${allowedValues(spec)}`);
        else line.written.set(flag, { text, source: name });
      } else if (negated && inline === undefined) {
        line.written.set(negated, { text: 'false', source: name });
      } else if (negated) {
        line.mistakes.push(`${name} takes no value`);
      } else {
        line.mistakes.push(unknownFlag(table, name));
        if (inline === undefined && next !== undefined && !next.startsWith('-')) at++;
      }
    }
  }
  return line;
}

function takesNext(spec: OptionSpec, next: string | undefined): boolean {
  if (spec.type === 'boolean') return next === 'true' || next === 'false';
  return next !== undefined && !next.startsWith('--');
}

function readValue(spec: OptionSpec, text: string): { value: OptionValue } | { wrong: string } {
  const value = convert(spec, text);
  const wrong = value === undefined ? `must be ${allowedValues(spec)}` : wrongValue(spec, value);
  return value === undefined || wrong !== undefined ? { wrong: wrong ?? '' } : { value };
}

function convert(spec: OptionSpec, text: string): OptionValue | undefined {
  switch (spec.type) {
    case 'string':
      return text;
    case 'boolean':
      return text === 'true' ? true : text === 'false' ? false : undefined;
    case 'integer':
      return /^-?\d+$/.test(text) ? Number(text) : undefined;
    case 'number':
      return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : undefined;
  }
}

function mistake(spec: OptionSpec, { text, source }: Written, wrong: string): string {
  const read = spec.secret ? 'a value that is secret' : JSON.stringify(shortened(String(shownValue(spec, text))));
  const safe = spec.secret && text !== '' ? wrong.replaceAll(text, '[redacted]') : wrong;
  return oneLine(`${source} ${safe}; read ${read}`);
}

function unknownFlag(table: ReadonlyMap<string, OptionSpec>, name: string): string {
  const near = nearest(
    name
      .replace(/^-+(no-)?/, '')
      .replaceAll('_', '-')
      .toLowerCase(),
    table.keys(),
  );
  return `${shortened(name)} is not a flag${near ? `; did you mean --${near}?` : ', see --help'}`;
}

/** The candidate that fewest edits away, if it is near enough to be meant. */
function nearest(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    const edits = editDistance(name, candidate);
    if (edits < least) {
      least = edits;
      best = candidate;
    }
  }
  return best;
}

/** Levenshtein, one row at a time. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

const shownLength = 80;

function shortened(text: string): string {
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text;
}

function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, ' ');
}
