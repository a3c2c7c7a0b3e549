import { readArguments, shortened } from './command-line.ts';
import type { ConfigLayer, Written } from './config-file.ts';
import { helpText } from './help.ts';
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
      /** The operands; a service has none. */
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
  const { written, asked } = readArguments(table, argv, service);
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
  const line = readArguments(table, argv, service);
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
  if (path !== '' && file && given) return { mistake: `${given.source} and ${file.source}: set only one of the two` };
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

/** A mistake in one line, which may repeat a URL. */
function shownLine(text: string): string {
  return withoutUrlSecrets(text.replace(/[\s\p{Cc}]+/gu, ' '));
}
