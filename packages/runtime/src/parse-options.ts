import type { ConfigLayer, Written } from './config-file.ts';
import { helpText } from './help.ts';
import { nearest } from './nearest.ts';
import {
  allowedValues,
  type Check,
  camelCase,
  type Environment,
  environmentName,
  flagTable,
  type OptionGroup,
  type OptionSpec,
  type OptionValue,
  type ServiceFlags,
  type ServiceOptions,
  type ServiceValues,
  shownValue,
  wrongValue,
} from './option-table.ts';
import { readProxies } from './proxy-environment.ts';
import { checkReadable, minHiddenLength, readSecretFile, type SecretReader, Secrets } from './secrets.ts';
import { secretsOfUrl, withoutUrlSecrets } from './url-secrets.ts';

export type Parsed<Values> =
  | {
      readonly values: Values;
      readonly secrets: Secrets;
      /** What was given, and where: `--port`, `LLM_GATEWAY_PORT`, or a file and its key. */
      readonly given: ReadonlyMap<string, Written>;
      /** The text of the file of `--config`, where there is one. */
      readonly configText?: string | undefined;
      /** The words beside the flags; of a service there are none. */
      readonly operands: readonly string[];
      /** The words that a command with `rest` does not know. */
      readonly rest: readonly string[];
      /** Where they were asked for, as is `remarks` of mistakes. */
      readonly remarks?: readonly string[];
    }
  | { readonly mistakes: readonly string[]; readonly remarks?: readonly string[] }
  | { readonly help: string }
  | { readonly version: true };

/**
 * Reads the flags in `argv` (without node and the script) and the environment into typed values, or
 * says everything that is wrong with them, one line each, without any secret.
 *
 * `--flag value`, `--flag=value`; booleans also `--flag` and `--no-flag`. A value that begins with
 * `--` needs the `=`. A flag beats its environment variable; of a flag given more than once the
 * last one counts, so that a wrapper's flags can be overridden at the end of the line; an empty
 * variable counts as absent.
 */
export function parseOptions<Groups extends readonly OptionGroup[]>(
  service: ServiceOptions<Groups>,
  argv: readonly string[],
  env: Environment,
): Parsed<ServiceValues<Groups>> {
  return parse(service, argv, env);
}

/**
 * The same with the file that `--config` names, which flags and the environment beat. The file is
 * read anew at each call.
 * @param options.secrets takes the secrets that are found
 * @param options.thorough whether the service's `checkFollowed` and `remarks` are asked as well
 */
export async function readOptions<Values>(
  service: Checked<Values>,
  argv: readonly string[],
  env: Environment,
  { secrets = new Secrets(), thorough = false }: { secrets?: Secrets; thorough?: boolean } = {},
): Promise<Parsed<Values>> {
  const table = flagTable(service);
  const { written, asked } = readArguments(table, argv, service.command);
  const path = table.has('config') ? (written.get('config') ?? fromEnvironment('config', env))?.text : undefined;
  if (!path || asked !== undefined) return parse(service, argv, env, { secrets, thorough });
  // What reads YAML is loaded by those alone that have a file.
  const { readConfigFile } = await import('./config-file.ts');
  return parse(service, argv, env, { secrets, thorough, layer: readConfigFile(path, service) });
}

export interface Checked<Values> extends ServiceFlags {
  readonly check?: Check<Values> | readonly Check<Values>[];
  readonly checkFollowed?: Check<Values> | readonly Check<Values>[];
  readonly remarks?: Check<Values> | readonly Check<Values>[];
}

export function parse<Values>(
  service: Checked<Values>,
  argv: readonly string[],
  env: Environment,
  {
    secrets = new Secrets(),
    layer,
    thorough = false,
  }: { secrets?: Secrets; layer?: ConfigLayer; thorough?: boolean } = {},
): Parsed<Values> {
  const table = flagTable(service);
  const line = readArguments(table, argv, service.command);
  if (line.asked === 'help' || line.asked === 'help all') {
    return { help: helpText(service, { all: line.asked === 'help all' }) };
  }
  if (line.asked === 'version') return { version: true };

  const mistakes = [...(layer?.mistakes ?? []), ...line.mistakes, ...missingOperands(service, line.operands)];
  const values: Record<string, OptionValue | SecretReader> = {};
  const given = new Map<string, Written>();
  const nearer = (flag: string) =>
    line.written.get(flag) ?? fromEnvironment(flag, env) ?? fromStandard(table.get(flag), env);
  for (const [flag, spec] of table) {
    let written = nearer(flag);
    if (spec.type === 'string' && spec.secret) {
      let file = nearer(`${flag}-file`);
      // Of a secret and its file whichever is given nearer counts.
      if (!written?.text && !file?.text) {
        written = layer?.written.get(flag);
        file = layer?.written.get(`${flag}-file`);
      }
      if (written) given.set(flag, written);
      const read = readSecret(flag, spec, { written, file, secrets });
      if ('value' in read) values[camelCase(flag)] = read.value;
      else {
        mistakes.push(read.mistake);
        hideFromChecks(values, flag);
      }
      continue;
    }
    written ??= layer?.written.get(flag);
    if (written) {
      given.set(flag, written);
      for (const [at, secret] of secretsOfUrl(written.text).entries()) secrets.add(`${flag}[${at}]`, secret);
    }
    const read = written ? readValue(flag, spec, written.text) : { value: spec.default };
    if ('value' in read) values[camelCase(flag)] = read.value;
    else {
      if (written) mistakes.push(mistake(spec, written, read.wrong));
      hideFromChecks(values, flag);
    }
  }
  // Each value was read by the specification that its type is inferred from.
  const typed = values as Values;
  const { check = [], checkFollowed = [], remarks = [] } = service;
  const checks = thorough ? [check, checkFollowed].flat() : [check].flat();
  for (const one of checks) mistakes.push(...checked(one, typed, env));
  const remarked = thorough && {
    remarks: [remarks]
      .flat()
      .flatMap((one) => checked(one, typed, env))
      .map(shownLine),
  };
  const found = readProxies(service.usesProxies === true ? env : {});
  if ('mistakes' in found) mistakes.push(...found.mistakes);
  // A file of keys that cannot be read shows in several flags.
  if (mistakes.length > 0) return { mistakes: [...new Set(mistakes.map(shownLine))], ...remarked };
  const { operands, rest } = line;
  return { values: typed, secrets, given, configText: layer?.text, operands, rest, ...remarked };
}

/** What a check reads of a flag that is wrong by itself. */
const wrongFlag = Symbol('wrong flag');

function hideFromChecks(values: object, flag: string): void {
  Object.defineProperty(values, camelCase(flag), {
    enumerable: true,
    get() {
      throw wrongFlag;
    },
  });
}

function checked<Values>(check: Check<Values>, values: Values, env: Environment): string[] {
  try {
    return check(values, env);
  } catch (error) {
    if (error === wrongFlag) return [];
    throw error;
  }
}

function missingOperands({ command }: ServiceFlags, given: readonly string[]): string[] {
  const missing = command?.operands.slice(given.length).filter((name) => !name.startsWith('[')) ?? [];
  return missing.map((name) => `${name}: missing, see --help`);
}

/** A secret as it was given, or as its file holds it. */
function readSecret(
  flag: string,
  spec: Extract<OptionSpec, { type: 'string' }>,
  { written, file, secrets }: { written: Written | undefined; file: Written | undefined; secrets: Secrets },
): { readonly value: string | SecretReader } | { readonly mistake: string } {
  const given = written?.text ? written : undefined;
  const path = file?.text ?? '';
  if (path !== '' && file && given) return { mistake: `${given.source} and ${file.source}: give one of the two` };
  let text = given?.text ?? spec.default;
  if (path !== '' && file) {
    try {
      text = readSecretFile(path);
    } catch (error) {
      return { mistake: `${file.source}: cannot be read: ${error instanceof Error ? error.message : error}` };
    }
  }
  const { source } = (path !== '' ? file : written) ?? { source: `--${flag}` };
  const isBlank = text !== '' && text.trim() === '' && spec.list === undefined;
  const wrong = isBlank ? 'which is blank, allowed: a string' : wrongValue(flag, spec, text);
  if (wrong !== undefined) return { mistake: mistake(spec, { text, source }, wrong) };
  secrets.add(flag, text);
  if (!spec.reread) return { value: text };
  return { value: path === '' ? () => text : secrets.reader(flag, path, text) };
}

function fromEnvironment(flag: string, env: Environment): Written | undefined {
  const source = environmentName(flag);
  const text = env[source];
  return text ? { text, source } : undefined;
}

function fromStandard(spec: OptionSpec | undefined, env: Environment): Written | undefined {
  for (const { name, read } of spec?.standard ?? []) {
    const given = env[name];
    const text = given && read ? read(given) : given;
    // An empty variable says nothing; an empty value may be what one means.
    if (given && text !== undefined) return { text, source: name };
  }
  return undefined;
}

interface CommandLine {
  readonly written: Map<string, Written>;
  readonly operands: string[];
  readonly rest: string[];
  readonly mistakes: string[];
  asked?: 'help' | 'help all' | 'version';
}

function readArguments(
  table: ReadonlyMap<string, OptionSpec>,
  argv: readonly string[],
  command: ServiceFlags['command'],
): CommandLine {
  const maxOperands = command?.operands.length ?? 0;
  const line: CommandLine = { written: new Map(), operands: [], rest: [], mistakes: [] };
  // After a secret's flag, or one that may be meant to be it, a word we do not know can be (the
  // rest of) the secret.
  let hide: 'nothing' | 'words' | 'anything' = 'nothing';
  for (let at = 0; at < argv.length; at++) {
    const word = recognise(table, argv[at] ?? '');
    const next = argv[at + 1];
    if (word.kind === 'question') {
      if (word.asked === 'help') line.asked = next === 'all' || line.asked === 'help all' ? 'help all' : 'help';
      else line.asked ??= word.asked;
    } else if (word.kind === 'flag') {
      const { spec, name, flag } = word;
      const given = word.inline ?? (takesNext(spec, next) ? argv[++at] : undefined);
      const text = given ?? (spec.type === 'boolean' ? 'true' : undefined);
      hide = !spec.secret ? 'nothing' : text === undefined ? 'anything' : 'words';
      if (text === undefined) line.mistakes.push(`${name}: read no value, allowed: ${allowedValues(flag, spec)}`);
      else line.written.set(flag, { text, source: name });
    } else if (word.kind === 'negation') {
      hide = 'nothing';
      if (word.inline === undefined) line.written.set(word.flag, { text: 'false', source: word.name });
      else line.mistakes.push(`${word.name}: read a value, allowed: none`);
    } else if (word.kind === 'stray' && hide === 'nothing' && line.operands.length < maxOperands) {
      line.operands.push(word.name);
    } else if (command?.rest !== undefined) {
      line.rest.push(argv[at] ?? '');
    } else {
      const unknown = word.kind === 'unknown';
      const hidden = hide === 'anything' || (hide === 'words' && !word.name.startsWith('--'));
      const shown = hidden ? `argument ${at + 1} (not shown, it may be part of a secret)` : shortened(word.name);
      const near = unknown && !hidden ? nearest(plainName(word.name), table.keys()) : undefined;
      const advice = near === undefined ? 'see --help' : `did you mean --${near}?`;
      line.mistakes.push(`${shown}: no flag of this service, ${advice}`);
      if (unknown) hide = 'words';
      // Its value, most likely.
      if (unknown && word.inline === undefined && next !== undefined && next !== '-h' && !next.startsWith('--')) at++;
    }
  }
  return line;
}

type Word =
  | { readonly kind: 'question'; readonly asked: 'help' | 'version' }
  | {
      readonly kind: 'flag';
      readonly name: string;
      readonly flag: string;
      readonly spec: OptionSpec;
      readonly inline?: string;
    }
  | { readonly kind: 'negation'; readonly name: string; readonly flag: string; readonly inline?: string }
  | { readonly kind: 'unknown' | 'stray'; readonly name: string; readonly inline?: string };

function recognise(table: ReadonlyMap<string, OptionSpec>, word: string): Word {
  if (word === '--help' || word === '-h') return { kind: 'question', asked: 'help' };
  if (word === '--version') return { kind: 'question', asked: 'version' };
  if (!word.startsWith('-')) return { kind: 'stray', name: word };
  const short = /^-[a-z]$/.test(word) ? [...table].find(([, spec]) => spec.short === word.slice(1)) : undefined;
  if (short !== undefined) return { kind: 'flag', name: word, flag: short[0], spec: short[1] };
  const equals = word.indexOf('=');
  const name = equals < 0 ? word : word.slice(0, equals);
  const inline = equals < 0 ? {} : { inline: word.slice(equals + 1) };
  const flag = name.startsWith('--') ? name.slice(2) : '';
  const spec = table.get(flag);
  if (spec) return { kind: 'flag', name, flag, spec, ...inline };
  const positive = flag.startsWith('no-') ? flag.slice(3) : '';
  if (table.get(positive)?.type === 'boolean') return { kind: 'negation', name, flag: positive, ...inline };
  return { kind: 'unknown', name, ...inline };
}

function takesNext(spec: OptionSpec, next: string | undefined): boolean {
  if (spec.type === 'boolean') return next === 'true' || next === 'false';
  return next !== undefined && !next.startsWith('--');
}

function readValue(flag: string, spec: OptionSpec, text: string): { value: OptionValue } | { wrong: string } {
  const value = convert(spec, text);
  if (value === undefined) return { wrong: `allowed: ${allowedValues(flag, spec)}` };
  const wrong = wrongValue(flag, spec, value) ?? (spec.type === 'string' && spec.file ? unreadable(text) : undefined);
  return wrong === undefined ? { value } : { wrong };
}

function unreadable(path: string): string | undefined {
  if (path === '') return undefined;
  try {
    checkReadable(path);
    return undefined;
  } catch (error) {
    return `which cannot be read: ${error instanceof Error ? error.message : error}`;
  }
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
  const read = spec.secret ? 'a secret' : JSON.stringify(shortened(String(shownValue(spec, text))));
  // A shorter one would be found in the words of the message.
  const isHidden = spec.secret && text.length >= minHiddenLength;
  return `${source}: read ${read}, ${isHidden ? wrong.replaceAll(text, '[redacted]') : wrong}`;
}

/** `--No_Fast` → `fast`: what is compared with the names of flags. */
function plainName(name: string): string {
  return name
    .toLowerCase()
    .replaceAll('_', '-')
    .replace(/^-+(no-)?/, '');
}

const shownLength = 80;

function shortened(text: string): string {
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text;
}

/** A mistake in one line, which may repeat a URL. */
function shownLine(text: string): string {
  return withoutUrlSecrets(text.replace(/[\s\p{Cc}]+/gu, ' '));
}
