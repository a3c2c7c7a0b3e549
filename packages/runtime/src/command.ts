import {
  type CommandFlags,
  checkTable,
  type Environment,
  type OptionGroup,
  type OptionValues,
} from './option-table.ts';
import { readOptions } from './parse-options.ts';
import { printable } from './printable.ts';

/**
 * What a command ends with: it did what it was asked to, it could not, or it was asked wrongly
 * (EX_USAGE).
 */
export const exitCodes = { done: 0, failed: 1, usage: 64 } as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const outputOptions = {
  json: {
    type: 'boolean',
    default: false,
    description: 'Answer with one line of JSON for each answer, for programs',
  },
} as const satisfies OptionGroup;

/** What a command runs with. */
export interface CommandParts {
  /** The operands given, at most as many as the command declares. */
  readonly operands: readonly string[];
  /** The words that a command with `rest` does not know. */
  readonly rest: readonly string[];
  readonly env: Environment;
  /** Writes an answer on stdout: with `--json` the value as one line, otherwise the text. */
  answer(json: unknown, text: string): void;
  /** Writes a line on stderr: what went wrong, or how far it is. */
  tell(line: string): void;
  /** Aborts on SIGINT and SIGTERM: a command that waits gives up. */
  readonly signal: AbortSignal;
}

/** A command: it does one thing, answers, and ends. */
export interface Command<Groups extends readonly OptionGroup[]> extends CommandFlags<Groups> {
  /**
   * What it throws becomes a line on stderr and `exitCodes.failed`. The process ends once its output
   * is written, whatever is still open.
   */
  run(values: OptionValues<Groups>, parts: CommandParts): Promise<ExitCode>;
}

/** Declares a command, which gets the flag `--json`. Throws when its flags are declared wrongly. */
export function defineCommand<const Groups extends readonly OptionGroup[]>(
  definition: Command<readonly [...Groups, typeof outputOptions]>,
): Command<readonly [...Groups, typeof outputOptions]> {
  checkTable(definition);
  return definition;
}

/**
 * Runs a command with its arguments and ends the process: with 0 after `--help` too, with 64 for
 * wrong flags or operands, a line each on stderr.
 */
export async function runCommand<const Groups extends readonly OptionGroup[]>(
  command: Command<Groups>,
  argv: readonly string[],
): Promise<void> {
  // biome-ignore lint/style/noProcessEnv: with `run` the place where the environment is read
  const env = process.env;
  const parsed = await readOptions<OptionValues<Groups>>(command, argv, env);
  // A reader that has seen enough, such as `head`, closes the pipe.
  process.stdout.on('error', () => process.exit());
  if ('help' in parsed) process.stdout.write(parsed.help);
  else if ('mistakes' in parsed) {
    for (const mistake of parsed.mistakes) process.stderr.write(`llm-gateway ${command.name}: ${mistake}\n`);
    process.exitCode = exitCodes.usage;
  } else if ('values' in parsed) {
    const { values, secrets, operands, rest } = parsed;
    const told = new AbortController();
    const end = () => told.abort();
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, end);
    const inJson = 'json' in values && values.json === true;
    const tell = (line: string) =>
      void process.stderr.write(`llm-gateway ${command.name}: ${printable(secrets.hide(line))}\n`);
    try {
      process.exitCode = await command.run(values, {
        operands,
        rest,
        env,
        answer(json, text) {
          process.stdout.write(`${printable(inJson ? JSON.stringify(json) : text)}\n`);
        },
        tell,
        signal: told.signal,
      });
    } catch (error) {
      tell(error instanceof Error ? error.message : String(error));
      process.exitCode = exitCodes.failed;
    } finally {
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, end);
    }
  }
  // The NATS client keeps the socket of a server that accepts connections and never answers.
  await Promise.all([written(process.stdout), written(process.stderr)]);
  process.exit();
}

/** Resolves when everything written to the stream so far has left the process, or cannot. */
function written(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableLength === 0) return Promise.resolve();
  return new Promise((resolve) => stream.write('', () => resolve()));
}
