import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { maxKeyFileBytes, newKey, readKeyFile } from '@llm-gateway/ingress/options';
import { defineCommand, exitCodes, outputOptions, readRegularFile } from '@llm-gateway/runtime';

const rowOptions = {
  name: { type: 'string', default: '', description: 'Who gets the key; unique in the file' },
  models: {
    type: 'string',
    default: '',
    description: 'Models that the key may use, with commas between: names, or prefixes that end in *; empty: all',
  },
  rpm: { type: 'integer', default: 0, min: 0, description: 'Requests a minute; 0: no limit' },
  tpm: { type: 'integer', default: 0, min: 0, description: 'Tokens a minute; 0: no limit' },
  concurrent: { type: 'integer', default: 0, min: 0, description: 'Requests at once; 0: no limit' },
  expires: { type: 'string', default: '', description: 'When it stops to be valid: 2027-01-31T00:00:00Z' },
  file: {
    type: 'string',
    default: '',
    description: 'File of --client-keys to add the row to, made when missing; empty: only print it',
  },
} as const;

/** Makes a key. It is shown once, here: the row has its hash alone. */
export const command = defineCommand({
  name: 'keys new',
  description: 'Makes an API key for a client: prints the key, and the row for the file of --client-keys',
  example: 'llm-gateway keys new --name search-team # prints the key once, and its row for --client-keys',
  command: { operands: [] },
  groups: [rowOptions, outputOptions],
  check: ({ name }) => (name === '' ? ['--name is needed'] : []),
  async run({ name, models, rpm, tpm, concurrent, expires, file }, { answer, tell }) {
    const { key, hash } = newKey();
    const row = {
      name,
      hash,
      ...(models !== '' && { models: models.split(',').map((model) => model.trim()) }),
      ...(rpm > 0 && { rpm }),
      ...(tpm > 0 && { tpm }),
      ...(concurrent > 0 && { concurrent }),
      ...(expires !== '' && { expires }),
    };
    const rows = file !== '' && existsSync(file) ? rowsOf(file) : { keys: [] };
    const read = 'mistakes' in rows ? rows : readKeyFile(JSON.stringify({ keys: [...rows.keys, row] }));
    if ('mistakes' in read) {
      for (const mistake of read.mistakes) tell(mistake);
      return exitCodes.usage;
    }
    if (file !== '' && 'keys' in rows) {
      // Whoever follows the file sees the old one or the new one, and never a part.
      writeFileSync(`${file}.new`, `${JSON.stringify({ keys: [...rows.keys, row] }, null, 2)}\n`);
      renameSync(`${file}.new`, file);
    }
    answer({ key, row }, `${key}\n${JSON.stringify(row)}`);
    return exitCodes.done;
  },
});

/** The rows of a file as they are written there, or its mistakes. */
function rowsOf(path: string): { readonly keys: readonly unknown[] } | { readonly mistakes: readonly string[] } {
  const text = readRegularFile(path, maxKeyFileBytes);
  const read = readKeyFile(text);
  if ('mistakes' in read) return { mistakes: read.mistakes.map((mistake) => `${path}: ${mistake}`) };
  return JSON.parse(text) as { keys: unknown[] };
}
