import { maxKeyFileBytes, readKeyFile } from '@llm-gateway/ingress/options';
import { defineCommand, exitCodes, outputOptions, readRegularFile } from '@llm-gateway/runtime';

/** Checks a file as the ingress does that starts with it. */
export const command = defineCommand({
  name: 'keys check',
  description: 'Checks a file of --client-keys: a line for each mistake',
  example: 'llm-gateway keys check keys.json # what a start would refuse',
  command: { operands: ['FILE'] },
  groups: [outputOptions],
  async run(_values, { operands: [path = ''], answer, tell }) {
    const read = readKeyFileAt(path);
    if ('mistakes' in read) {
      for (const mistake of read.mistakes) tell(mistake);
      return exitCodes.usage;
    }
    answer({ keys: read.keys.size }, `${read.keys.size} keys, no mistake`);
    return exitCodes.done;
  },
});

function readKeyFileAt(path: string): ReturnType<typeof readKeyFile> {
  try {
    const read = readKeyFile(readRegularFile(path, maxKeyFileBytes));
    return 'mistakes' in read ? { mistakes: read.mistakes.map((mistake) => `${path}: ${mistake}`) } : read;
  } catch (error) {
    return { mistakes: [`${path} cannot be read: ${error instanceof Error ? error.message : error}`] };
  }
}
