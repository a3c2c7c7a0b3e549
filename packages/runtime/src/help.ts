import { allowedValues, flagTable, type OptionSpec, type ServiceFlags } from './option-table.ts';

const lineWidth = 100;

/** @param options.all explain every flag; otherwise those of `main`, and name the rest */
export function helpText(service: ServiceFlags, { all = false }: { readonly all?: boolean } = {}): string {
  const table = flagTable(service);
  const explained = all ? undefined : service.main;
  const rest = explained === undefined ? [] : [...table.keys()].filter((flag) => !explained.includes(flag));
  const flags = [...table].filter(([flag]) => !rest.includes(flag)).map(([flag, spec]) => flagHelp(flag, spec));
  return [
    ...(service.command ? [usage(service.name, service.command), ''] : []),
    ...wrapped(`${service.name}: ${service.description}`, ''),
    '',
    ...(service.example === undefined ? [] : ['For example:', `  ${service.example}`, '']),
    'Each flag can also be set in the environment: --some-flag is LLM_GATEWAY_SOME_FLAG. A flag beats the environment.',
    '',
    ...flags,
    ...(rest.length === 0 ? ['  --help'] : ['  --help [all]']),
    ...(service.command ? [] : ['  --version']),
    ...(rest.length === 0 ? [] : ['', 'Further flags, which --help all explains:', ...clustered(rest)]),
    '',
  ].join('\n');
}

/** How a command is called: `llm-gateway drain INSTANCE [FLAG...]`. */
export function usage(name: string, { operands, rest }: NonNullable<ServiceFlags['command']>): string {
  return ['llm-gateway', name, ...operands, ...(rest === undefined ? [] : [`[${rest}...]`]), '[FLAG...]'].join(' ');
}

/** Flags whose names begin with the same word in a row of their own. */
function clustered(flags: readonly string[]): string[] {
  const byWord = Map.groupBy(flags, (flag) => flag.split('-', 1)[0] ?? '');
  const isAlone = (own: readonly string[]) => own.length < 3;
  const alone = [...byWord.values()].filter(isAlone).flat();
  const rows = [...byWord]
    .filter(([, own]) => !isAlone(own))
    .map(([word, own]) => `--${word}…: ${own.map((flag) => flag.slice(word.length) || '(alone)').join(' ')}`);
  return [...rows, ...(alone.length === 0 ? [] : [alone.map((flag) => `--${flag}`).join(' ')])].flatMap((row) => {
    const [first = '', ...others] = wrapped(row, '      ');
    return [`  ${first.trimStart()}`, ...others];
  });
}

function flagHelp(flag: string, spec: OptionSpec): string {
  const name = spec.short === undefined ? `--${flag}` : `-${spec.short}, --${flag}`;
  const form = spec.type === 'boolean' ? `--[no-]${flag}` : `${name} <${spec.type}>`;
  return [`  ${form}`, ...wrapped(`${spec.description} (${facts(flag, spec).join('; ')})`, '      ')].join('\n');
}

function facts(flag: string, spec: OptionSpec): string[] {
  const words = allowedValues(flag, spec);
  const allowed = spec.type === 'boolean' || words === 'a string' ? [] : [words];
  return [...allowed, spec.secret ? 'secret' : `default ${spec.default === '' ? 'empty' : spec.default}`];
}

function wrapped(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(/\s+/)) {
    if (line.length > indent.length && line.length + 1 + word.length > lineWidth) {
      lines.push(line);
      line = indent;
    }
    line += line.length > indent.length ? ` ${word}` : word;
  }
  return [...lines, line];
}
