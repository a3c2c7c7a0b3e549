import { readFileSync } from 'node:fs';
import { readKeyFile } from '@llm-gateway/ingress/options';
import { defineCommand, exitCodes, outputOptions } from '@llm-gateway/runtime';

/** Checks a file as the ingress does that starts with it. */
export const command = defineCommand({
  name: 'keys check',
  description: 'Checks a file of --client-keys: a line for each mistake',
  example: 'llm-gateway keys check keys.json # what a start would refuse',
  command: { operands: ['FILE'] },
  groups: [outputOptions],
  async run(_values, { operands: [path = ''], answer, tell }) {
    const read = readKeyFile(readFileSync(path, 'utf8'));
    if ('mistakes' in read) {
      for (const mistake of read.mistakes) tell(mistake);
      return exitCodes.usage;
    }
    answer({ keys: read.keys.size }, `${read.keys.size} keys, no mistake`);
    return exitCodes.done;
  },
});
