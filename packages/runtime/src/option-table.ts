import type { SecretReader } from './secrets.ts';
import { withoutUrlSecrets } from './url-secrets.ts';

/** Variables by name; an empty one counts as absent. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The option table. A flag is declared once, as plain data in the group of the package or service
 * that understands it; parsing, `--help`, the start-up log and `docs/configuration.md` are made
 * from that.
 */
interface Described {
  readonly description: string;
  /** A letter that stands for the flag behind one dash. */
  readonly short?: string;
  /** Shown with the default if the flag's name does not contain it. */
  readonly unit?: string;
  /**
   * Variables of a standard that also say it, the first that does before the others; the flag and
   * its own variable beat them.
   */
  readonly standard?: readonly StandardVariable[];
}

export interface StandardVariable {
  readonly name: string;
  /**
   * What its text means as a value of the flag; undefined when it says nothing about it. Without
   * it, the text itself.
   */
  read?(text: string): string | undefined;
}

interface StringOption extends Described {
  readonly type: 'string';
  readonly default: string;
  /**
   * Its value appears in no log, mistake, help or document. The table adds a flag of its name and
   * `-file` for a file that holds the value.
   */
  readonly secret?: boolean;
  /**
   * Of a secret: its value is a function that reads it, so that a file can be rotated. Otherwise it
   * is read once.
   */
  readonly reread?: boolean;
  /** Names a file that must be there and readable when the process starts. */
  readonly file?: true;
  /**
   * What a list in the file of `--config` becomes: words joined by commas, or rows as JSON. Without
   * it a list is a mistake.
   */
  readonly list?: 'words' | 'rows';
  /** May change in the file of `--config` while the process runs. */
  readonly live?: true;
  /** The secret flag whose value is in the file at this path. Only the table sets it. */
  readonly fileOf?: string;
  /** The values allowed besides the default; all when absent. */
  readonly choices?: readonly string[];
  /**
   * Says what is wrong with a value, e.g. `port 0 of "a:0" is not in 1-65535`. Of a secret it
   * repeats nothing.
   */
  validate?(value: string): string | undefined;
}

interface NumericOption extends Described {
  readonly secret?: false;
  /** Both are plain decimal: no exponent, no hexadecimal, no sign but a minus. */
  readonly type: 'integer' | 'number';
  readonly default: number;
  readonly min?: number;
  readonly max?: number;
  validate?(value: number): string | undefined;
}

interface BooleanOption extends Described {
  readonly secret?: false;
  readonly type: 'boolean';
  readonly default: boolean;
}

export type OptionSpec = StringOption | NumericOption | BooleanOption;
export type OptionValue = string | number | boolean;

/**
 * Flags by name (kebab-case, without `--`). Declare it `as const`: the types of the values come
 * from it.
 */
export type OptionGroup = Readonly<Record<string, OptionSpec>>;

type CamelCase<S extends string> = S extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S;

type ValueOf<Spec> = Spec extends { readonly reread: true }
  ? SecretReader
  : Spec extends { readonly type: 'boolean' }
    ? boolean
    : Spec extends { readonly type: 'integer' | 'number' }
      ? number
      : Spec extends { readonly choices: readonly (infer Choice)[]; readonly default: infer Default }
        ? Choice | Default
        : string;

type GroupValues<Group> = Group extends OptionGroup
  ? { readonly [Flag in keyof Group & string as CamelCase<Flag>]: ValueOf<Group[Flag]> }
  : never;
type Intersection<Union> = (Union extends unknown ? (member: Union) => void : never) extends (all: infer All) => void
  ? All
  : never;
type Flat<Type> = { readonly [Key in keyof Type]: Type[Key] };

/** The values of some groups, e.g. `{ natsServers: string; adminPort: number }`. */
export type OptionValues<Groups extends readonly OptionGroup[]> = Flat<Intersection<GroupValues<Groups[number]>>>;

/** It stands in every subject and key, whose own lengths are limited. */
const maxNamespaceLength = 64;

/** The flags that every process has. `defineService` adds them. */
export const runtimeOptions = {
  config: {
    type: 'string',
    default: '',
    description:
      'YAML file with flag values by name; flags and the environment take precedence. Reloaded for flags marked live',
  },
  namespace: {
    type: 'string',
    default: '',
    description: `Name of the installation, before its keys in the store and its subjects on NATS, so that installations can share both; the same for all of its processes; letters, digits, - and _, with single dots between, at most ${maxNamespaceLength} characters`,
    validate: namespaceMistake,
  },
  'admin-host': {
    type: 'string',
    default: '::',
    description: 'Address of the admin server (/healthz, /readyz, /metrics); :: = every IPv6 and IPv4 address',
  },
  'admin-port': {
    type: 'integer',
    default: 9090,
    min: 0,
    max: 65535,
    description: 'Port of the admin server; 0: any free port, shown in the log',
  },
  'advertise-host': {
    type: 'string',
    default: '',
    description:
      'Host name or address at which other processes reach this one; empty: its first address that is not loopback',
  },
  'log-level': {
    type: 'string',
    default: 'info',
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
    live: true,
    description: 'Lowest level to log',
  },
  'log-format': {
    type: 'string',
    default: 'auto',
    choices: ['auto', 'json', 'pretty'],
    description:
      'Format of the log: one JSON object a line, or readable lines; auto: readable on a terminal, JSON otherwise',
  },
  'config-refresh-interval-ms': {
    type: 'integer',
    default: 1000,
    min: 10,
    max: 86_400_000,
    description: 'Interval at which followed files, such as the route config, are checked for changes',
  },
  'drain-delay-ms': {
    type: 'integer',
    default: 2000,
    min: 0,
    max: 86_400_000,
    description:
      'Time after SIGTERM during which a service is not ready but still accepts work, so that load balancers notice',
  },
  'drain-timeout-ms': {
    type: 'integer',
    default: 300_000,
    min: 0,
    max: 86_400_000,
    description: 'Time after the drain delay for work in flight to finish before it is aborted',
  },
} as const satisfies OptionGroup;

/** NATS refuses a subject with an empty token, so no dot stands first, last or next to another. */
function namespaceMistake(value: string): string | undefined {
  const allowed = value === '' || (value.length <= maxNamespaceLength && /^[\w-]+(\.[\w-]+)*$/.test(value));
  return allowed
    ? undefined
    : `allowed: letters, digits, - and _, with single dots between, at most ${maxNamespaceLength} characters`;
}

export type RuntimeValues = OptionValues<readonly [typeof runtimeOptions]>;

/** The values of a service: those of its groups and of `runtimeOptions`. */
export type ServiceValues<Groups extends readonly OptionGroup[]> = OptionValues<
  readonly [...Groups, typeof runtimeOptions]
>;

/** What help and documents need to know of a service or a command. */
export interface ServiceFlags {
  readonly name: string;
  readonly description: string;
  readonly groups: readonly OptionGroup[];
  /** An example command line, with its effect after a `#`. */
  readonly example?: string;
  /** The flags that `--help` explains; `--help all` explains each. Left out: all of them. */
  readonly main?: readonly string[];
  /** Whether it calls third parties, for which the environment may name proxies. */
  readonly usesProxies?: boolean;
  /**
   * A command ends by itself: it has none of the flags of `runtimeOptions`, and may take operands.
   */
  readonly command?: {
    /**
     * As help shows them, in order: `['OLD', 'NEW']`. One in brackets, `[FILE]`, may be left out.
     */
    readonly operands: readonly string[];
    /**
     * How help calls the words that the command does not know, which it gets in their order: `FLAG
     * OF A SERVICE`.
     */
    readonly rest?: string;
  };
}

export interface ServiceOptions<Groups extends readonly OptionGroup[]> extends ServiceFlags {
  readonly groups: Groups;
  /**
   * What is wrong between flags, and with variables of standards that are no flags: a line each
   * that names them and repeats no secret. Of several checks those are left out that read a flag
   * which is wrong by itself.
   */
  readonly check?: Checks<ServiceValues<Groups>>;
  /**
   * Mistakes in files that a start tolerates until they are corrected. It is `validate`
   * that refuses it.
   */
  readonly checkFollowed?: Checks<ServiceValues<Groups>>;
  /** Likely oversights that are not mistakes; `validate` prints them. */
  readonly remarks?: Checks<ServiceValues<Groups>>;
}

type Checks<Values> = Check<Values> | readonly Check<Values>[];

// A method, so that a service is one whatever its flags.
export type Check<Values> = { check(values: Values, env: Environment): string[] }['check'];

/** The flags and operands of a command. */
export interface CommandFlags<Groups extends readonly OptionGroup[]> extends ServiceFlags {
  readonly groups: Groups;
  readonly command: NonNullable<ServiceFlags['command']>;
  /** As that of `ServiceOptions`. */
  readonly check?: Check<OptionValues<Groups>> | readonly Check<OptionValues<Groups>>[];
}

/** The values' type of what `defineService` returned. */
export type OptionsOf<Service> = Service extends ServiceOptions<infer Groups> ? ServiceValues<Groups> : never;

/**
 * Declares a service's flags. The same group may be listed more than once (`standalone` unites
 * those of others). Throws when the table itself is wrong: a flag declared twice, a default that is
 * not allowed, a secret with a default.
 */
export function defineService<const Groups extends readonly OptionGroup[]>(
  definition: ServiceOptions<Groups>,
): ServiceOptions<Groups> {
  checkTable(definition);
  return definition;
}

/** Throws when the flags of a service or command are declared wrongly. */
export function checkTable(definition: ServiceFlags): void {
  const table = flagTable(definition);
  for (const [flag, spec] of table) {
    const wrong = wrongSpec(flag, spec);
    if (wrong) throw new Error(`--${flag} of ${definition.name} ${wrong}`);
  }
  const unknown = definition.main?.find((flag) => !table.has(flag));
  if (unknown !== undefined) throw new Error(`--${unknown} is no flag of ${definition.name}`);
}

/** Every flag of a service or command once, its own groups first. */
export function flagTable(service: ServiceFlags): Map<string, OptionSpec> {
  const table = new Map<string, OptionSpec>();
  for (const group of service.command ? service.groups : [...service.groups, runtimeOptions]) {
    for (const [flag, spec] of flagsOf(group)) {
      const known = table.get(flag);
      if (known && known !== spec) throw new Error(`--${flag} of ${service.name} is declared twice`);
      table.set(flag, spec);
    }
  }
  return table;
}

/** The flags of a group in their order, each secret one with that of its file behind it. */
export function flagsOf(group: OptionGroup): [flag: string, spec: OptionSpec][] {
  return Object.entries<OptionSpec>(group).flatMap(([flag, spec]): [string, OptionSpec][] =>
    spec.type === 'string' && spec.secret
      ? [
          [flag, spec],
          [`${flag}-file`, fileOption(flag, spec)],
        ]
      : [[flag, spec]],
  );
}

/** One for each secret, in whichever service: two of the same flag must be the same object. */
const fileOptions = new WeakMap<OptionSpec, StringOption>();

function fileOption(flag: string, spec: StringOption): StringOption {
  const known = fileOptions.get(spec);
  if (known) return known;
  const made: StringOption = {
    type: 'string',
    default: '',
    fileOf: flag,
    description: `File with the value of --${flag}, instead of that flag; ${spec.reread ? 'read again at each connection' : 'read at the start'}`,
  };
  fileOptions.set(spec, made);
  return made;
}

function wrongSpec(flag: string, spec: OptionSpec): string | undefined {
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(flag)) return 'is not in kebab-case';
  if (flag === 'help' || flag === 'version' || flag.startsWith('no-')) return 'has a reserved name';
  if (spec.secret && spec.default !== '') return 'is secret and has a default';
  if (spec.type === 'string' && spec.reread && !spec.secret) return 'is read again and not secret';
  const wrongDefault = wrongValue(flag, spec, spec.default);
  return wrongDefault && `has a default that is refused: ${wrongDefault}`;
}

/** Why a value of the right type is not allowed, or undefined. */
export function wrongValue(flag: string, spec: OptionSpec, value: OptionValue): string | undefined {
  switch (spec.type) {
    case 'boolean':
      return undefined;
    case 'string': {
      const text = String(value);
      if (text === spec.default && spec.choices) return undefined;
      if (spec.choices && !spec.choices.includes(text)) return `allowed: ${allowedValues(flag, spec)}`;
      return spec.validate?.(text);
    }
    case 'integer':
    case 'number': {
      const number = Number(value);
      const finite = spec.type === 'integer' ? Number.isSafeInteger(number) : Number.isFinite(number);
      const { min = -Infinity, max = Infinity } = limits(flag, spec);
      const allowed = finite && number >= min && number <= max;
      return allowed ? spec.validate?.(number) : `allowed: ${allowedValues(flag, spec)}`;
    }
  }
}

/** What may be given, in words: `an integer from 0 to 65535`, `redis, etcd or endpoints`. */
export function allowedValues(flag: string, spec: OptionSpec): string {
  switch (spec.type) {
    case 'boolean':
      return 'true or false';
    case 'string': {
      if (!spec.choices) return 'a string';
      const words = [...new Set([...spec.choices, spec.default])].map((choice) => choice || 'empty');
      return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
    }
    case 'integer':
    case 'number': {
      const { min, max } = limits(flag, spec);
      const range = (min === undefined ? '' : ` from ${min}`) + (max === undefined ? '' : ` to ${max}`);
      return `${spec.type === 'integer' ? 'an integer' : 'a number'}${range}${spec.unit ? ` (${spec.unit})` : ''}`;
    }
  }
}

/** A timer set for longer than this fires at once, so no time may be longer. */
const maxTimerMs = 2_147_483_647;

function limits(flag: string, { min, max, unit }: NumericOption): { min: number | undefined; max: number | undefined } {
  const longest = unit === 'seconds' ? Math.floor(maxTimerMs / 1000) : flag.endsWith('-ms') ? maxTimerMs : undefined;
  return { min, max: max ?? longest };
}

export function environmentName(flag: string): string {
  return `LLM_GATEWAY_${flag.toUpperCase().replaceAll('-', '_')}`;
}

export function camelCase(flag: string): string {
  return flag.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** A value as logs and mistakes may show it: nothing of a secret, and no credential of a URL. */
export function shownValue(spec: OptionSpec, value: OptionValue): OptionValue {
  if (typeof value !== 'string') return value;
  if (spec.secret) return value === '' ? '' : '[redacted]';
  // A config where a file of it is meant: it may hold keys.
  if (/^\s*(\{|\[\s*[{"])/.test(value)) return '[JSON, not shown]';
  return withoutUrlSecrets(value);
}
