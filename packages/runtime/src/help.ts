import { allowedValues, flagTable, type OptionSpec, type ServiceFlags } from './option-table.ts';

const lineWidth = 100;

export function helpText(service: ServiceFlags): string {
  const flags = [...flagTable(service)].map(([flag, spec]) => flagHelp(flag, spec));
  return [
    ...(service.command
      ? [
          `llm-gateway ${[service.name, ...service.command.operands, ...(service.command.rest ? [`[${service.command.rest}...]`] : [])].join(' ')} [FLAG...]`,
          '',
        ]
      : []),
    ...wrapped(`${service.name}: ${service.description}`, ''),
    '',
    'Each flag can also be set in the environment: --some-flag is LLM_GATEWAY_SOME_FLAG. A flag beats the environment.',
    '',
    ...flags,
    '  --help',
    ...(service.command ? [] : ['  --version']),
    '',
  ].join('\n');
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
