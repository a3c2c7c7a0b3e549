import { parseArgs } from 'node:util';
import type { Written } from './config-file.ts';
import { usage } from './help.ts';
import { nearest } from './nearest.ts';
import { allowedValues, type OptionSpec, type ServiceFlags } from './option-table.ts';

/** What the words of a command line say, before any value is read. */
export interface CommandLine {
  /** The text of each flag that was given, by its name without dashes. */
  readonly written: Map<string, Written>;
  readonly operands: string[];
  readonly rest: string[];
  readonly mistakes: string[];
  asked?: 'help' | 'help all' | 'version';
}

/**
 * Sorts the words of `argv` into flags, operands and mistakes. No mistake repeats a word that may
 * be a secret, or the rest of one.
 */
export function readArguments(
  table: ReadonlyMap<string, OptionSpec>,
  argv: readonly string[],
  service: ServiceFlags,
): CommandLine {
  const { command } = service;
  const maxOperands = command?.operands.length ?? 0;
  const line: CommandLine = { written: new Map(), operands: [], rest: [], mistakes: [] };
  const shorts = shortsOf(table);
  // After a secret's flag, or one that may be meant to be it, a word we do not know can be (the
  // rest of) the secret.
  let hide: 'nothing' | 'words' | 'anything' = 'nothing';
  for (let at = 0; at < argv.length; at++) {
    const word = recognise(table, shorts, argv[at] ?? '');
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
    } else if (command !== undefined && word.kind === 'stray' && hide === 'nothing') {
      line.mistakes.push(`unexpected argument: ${shortened(word.name)}, usage: ${usage(service.name, command)}`);
    } else {
      const unknown = word.kind === 'unknown';
      const hidden = hide === 'anything' || (hide === 'words' && !word.name.startsWith('--'));
      const shown = hidden ? `argument ${at + 1} (not shown, it may be part of a secret)` : shortened(word.name);
      const near = unknown && !hidden ? nearest(plainName(word.name), table.keys()) : undefined;
      const advice = near === undefined ? 'see --help' : `did you mean --${near}?`;
      line.mistakes.push(`${shown}: not a flag of this ${command ? 'command' : 'service'}, ${advice}`);
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
      readonly inline: string | undefined;
    }
  | { readonly kind: 'negation'; readonly name: string; readonly flag: string; readonly inline: string | undefined }
  | { readonly kind: 'unknown' | 'stray'; readonly name: string; readonly inline?: string | undefined };

type Shorts = Record<string, { readonly type: 'boolean'; readonly short: string }>;

/**
 * The flags that have a letter, as `parseArgs` takes them; it knows the others by their dashes. All
 * are booleans there: whether the next word is the value of a flag is said by `takesNext`.
 */
function shortsOf(table: ReadonlyMap<string, OptionSpec>): Shorts {
  const shorts: Shorts = { help: { type: 'boolean', short: 'h' } };
  for (const [flag, { short }] of table) if (short !== undefined) shorts[flag] = { type: 'boolean', short };
  return shorts;
}

/** What one word is by itself. */
function recognise(table: ReadonlyMap<string, OptionSpec>, options: Shorts, word: string): Word {
  if (!word.startsWith('-')) return { kind: 'stray', name: word };
  const { tokens } = parseArgs({ args: [word], options, strict: false, tokens: true });
  const [token] = tokens;
  // More than one: letters behind one dash, which we do not take together.
  if (token?.kind === 'option' && tokens.length === 1) {
    const { name: flag, rawName: name, value: inline } = token;
    if ((flag === 'help' || flag === 'version') && inline === undefined) return { kind: 'question', asked: flag };
    const spec = table.get(flag);
    if (spec && (name === `--${flag}` || spec.short !== undefined)) return { kind: 'flag', name, flag, spec, inline };
    const positive = flag.startsWith('no-') ? flag.slice(3) : '';
    if (table.get(positive)?.type === 'boolean') return { kind: 'negation', name, flag: positive, inline };
  }
  const [name = '', ...rest] = word.split('=');
  return { kind: 'unknown', name, inline: rest.length === 0 ? undefined : rest.join('=') };
}

function takesNext(spec: OptionSpec, next: string | undefined): boolean {
  if (spec.type === 'boolean') return next === 'true' || next === 'false';
  return next !== undefined && !next.startsWith('--');
}

/** `--No_Fast` → `fast`: what is compared with the names of flags. */
function plainName(name: string): string {
  return name
    .toLowerCase()
    .replaceAll('_', '-')
    .replace(/^-+(no-)?/, '');
}

const shownLength = 80;

/** As much of a word as a line of a mistake shows. */
export function shortened(text: string): string {
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text;
}
