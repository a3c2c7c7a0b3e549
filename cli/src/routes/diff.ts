import { readRouteFile } from '@llm-gateway/route-config';
import { type Move, movesBetween, type RouteTable, readRoutes, routeChanges, routeOptions } from '@llm-gateway/routing';
import { defineCommand, exitCodes, outputOptions } from '@llm-gateway/runtime';
import { percent } from './explain.ts';

export const command = defineCommand({
  name: 'diff',
  description: 'Says which models move where between two files of route configs, with their shares before and after',
  example: 'llm-gateway diff routes.json new-routes.json # which models move where',
  command: { operands: ['OLD', 'NEW'] },
  groups: [{ 'route-policy': routeOptions['route-policy'] }, outputOptions],
  async run({ routePolicy }, { operands, answer, tell }) {
    const tables = operands.map((file) => read(file, routePolicy, tell));
    const [before, after] = tables;
    if (!before || !after) return exitCodes.usage;
    const moves = movesBetween(before, after);
    const changes = routeChanges(before, after);
    const text = [...changes, ...moves.map(told)];
    answer({ changes, moves }, text.length === 0 ? 'nothing differs' : text.join('\n'));
    return exitCodes.done;
  },
});

function read(file: string, routePolicy: string, tell: (line: string) => void): RouteTable | null {
  // What is meant where no policy is named: rows with prefixes are for them.
  const policies = routePolicy === '' ? ['prefix', 'weight'] : [routePolicy];
  const readings = policies.map((policy) =>
    readRoutes({ routePolicy: policy, routeConfig: `@${file}` }, readRouteFile),
  );
  const [reading] = readings;
  if (reading === undefined) return null;
  if ('mistakes' in reading) {
    for (const mistake of reading.mistakes) tell(mistake);
    return null;
  }
  if (routePolicy !== '' || reading.table.endpoints.some(({ prefix }) => prefix !== '')) return reading.table;
  const [, weighed] = readings;
  return weighed !== undefined && 'table' in weighed ? weighed.table : reading.table;
}

function told({ models, before, after }: Move): string {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const shares = names.map(
    (name) => `${name} ${percent(before[name] ?? 0).trim()} -> ${percent(after[name] ?? 0).trim()}`,
  );
  return `models ${models}: ${shares.join(', ')}`;
}
