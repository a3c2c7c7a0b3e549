import { type CommandGroup, commands } from './commands.ts';
import { services } from './services.ts';

const groups: readonly CommandGroup[] = ['Configuration', 'Clients', 'Operation'];

/** What `llm-gateway --help` says. */
export function overview(): string {
  const width = Math.max(...[...services.keys(), ...commands.keys()].map((name) => name.length)) + 2;
  const row = ([name, { summary }]: readonly [string, { readonly summary: string }]) =>
    `  ${name.padEnd(width)}${summary}`;
  const sections = groups.flatMap((group) => {
    const own = [...commands].filter(([, entry]) => entry.group === group);
    return own.length === 0 ? [] : ['', `${group}:`, ...own.map(row)];
  });
  return [
    'llm-gateway SERVICE [FLAG...]',
    'llm-gateway COMMAND [OPERAND...] [FLAG...]',
    '',
    'Services, each for as long as it lives:',
    ...[...services].map(row),
    ...sections,
    '',
    'A command ends with 0 when it did what it was asked to, 1 when it could not, 64 when it was asked wrongly.',
    'llm-gateway NAME --help has an example and explains the flags that most people set, --help all explains every one.',
    '',
  ].join('\n');
}

/** What `llm-gateway keys --help` prints: the commands whose first word is `first`. */
export function overviewOf(first: string): string {
  const own = [...commands].filter(([name]) => name.startsWith(`${first} `));
  const width = Math.max(...own.map(([name]) => name.length)) + 2;
  return [
    `llm-gateway ${first} COMMAND [OPERAND...] [FLAG...]`,
    '',
    ...own.map(([name, { summary }]) => `  ${name.padEnd(width)}${summary}`),
    '',
    `llm-gateway ${first} COMMAND --help has an example and explains its flags.`,
    '',
  ].join('\n');
}
