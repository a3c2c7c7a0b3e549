import { type Command, exitCodes, type OptionGroup, runCommand } from '@llm-gateway/runtime';
import manifest from '../package.json' with { type: 'json' };
import { commands } from './commands.ts';
import { overview, overviewOf } from './overview.ts';
import { services } from './services.ts';

/**
 * Runs what the first words name, a service or a command, with the words behind them.
 * @param argv without node and the script
 */
export async function main(argv: readonly string[]): Promise<void> {
  const [first = '', second = ''] = argv;
  const service = services.get(first);
  const command = commands.get(`${first} ${second}`) ?? commands.get(first);
  if (service) {
    const loaded = await service.load();
    await loaded.main(argv.slice(1));
  } else if (command) {
    const loaded: { command: Command<readonly OptionGroup[]> } = await command.load();
    await runCommand(loaded.command, argv.slice(loaded.command.name.split(' ').length));
  } else if (first === '' || isQuestion(first)) {
    process.stdout.write(overview());
    process.exitCode = first === '' ? exitCodes.usage : exitCodes.done;
  } else if (isQuestion(second) && secondWords(first).length > 0) {
    process.stdout.write(overviewOf(first));
  } else if (first === '--version') {
    process.stdout.write(`llm-gateway ${manifest.version}\n`);
  } else {
    process.stderr.write(`llm-gateway: ${unknown(first, second)}\n\n${overview()}`);
    process.exitCode = exitCodes.usage;
  }
}

function isQuestion(word: string): boolean {
  return ['help', '--help', '-h'].includes(word);
}

/** What follows the first word of commands that have two. */
function secondWords(first: string): string[] {
  return [...commands.keys()].flatMap((name) => (name.startsWith(`${first} `) ? [name.slice(first.length + 1)] : []));
}

function unknown(first: string, second: string): string {
  const quoted = (word: string) => JSON.stringify(word.slice(0, 80));
  const seconds = secondWords(first);
  if (seconds.length === 0) return `no service or command named ${quoted(first)}`;
  const read = second === '' ? 'nothing' : quoted(second);
  return `${first}: read ${read}, allowed: ${seconds.join(' or ')}`;
}

if (import.meta.main) await main(process.argv.slice(2));
