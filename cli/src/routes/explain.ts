import { readFileSync } from 'node:fs';
import { checkRoutes } from '@llm-gateway/route-config';
import { explainRoute, routeOptions, routeTable, type Way } from '@llm-gateway/routing';
import { defineCommand, exitCodes, outputOptions, runtimeOptions } from '@llm-gateway/runtime';

export const command = defineCommand({
  name: 'explain',
  description:
    'Says where requests for a model go by a route config, with which share, why, and what is tried when that fails',
  command: { operands: [] },
  groups: [
    {
      model: { type: 'string', default: '', description: 'Model that requests name; empty: they name none' },
      path: {
        type: 'string',
        default: '/v1/chat/completions',
        description: 'Path of the requests',
        validate: (value: string) => (value.startsWith('/') ? undefined : 'allowed: what begins with /'),
      },
      count: {
        type: 'integer',
        default: 0,
        min: 0,
        max: 1_000_000,
        description: 'Requests that are drawn, as a gateway would; 0: the exact shares alone',
      },
      config: runtimeOptions.config,
    },
    routeOptions,
    outputOptions,
  ],
  check: checkRoutes,
  async run({ model, path, count, routePolicy, routeConfig }, { answer, tell }) {
    const table = routeTable({ routePolicy, routeConfig }, (file) => readFileSync(file, 'utf8'), tell);
    const name = model === '' ? null : model;
    const ways = explainRoute(table, name, path);
    const drawn = count === 0 ? null : draws(ways, count, () => keyOf(table.choose(name, Math.random)));
    const lines = ways.flatMap((way, at) => [
      `${percent(way.share)} ${way.to}${way.row === null ? '' : ` (row ${way.row})`}${as(way.upstreamModel)}: ${way.why}${drawn === null ? '' : `; ${drawn[at]} of ${count} drawn`}`,
      ...way.fallbacks.map(
        (url, index) => `       ${index === 0 ? 'then' : 'and '} ${url}${as(way.fallbackModels?.[index])}`,
      ),
    ]);
    const json = ways.map((way, at) => ({ ...way, ...(drawn !== null && { drawn: drawn[at] }) }));
    answer({ model: name, path, generation: table.generation, ways: json }, lines.join('\n'));
    return exitCodes.done;
  },
});

/** Of a way on which the model has another name. */
function as(upstreamModel = ''): string {
  return upstreamModel === '' ? '' : ` as ${upstreamModel}`;
}

function keyOf(route: { readonly route: string; readonly endpoint?: number | null }): number | null {
  return route.endpoint ?? null;
}

/** How many of `count` draws go each way. */
function draws(ways: readonly Way[], count: number, draw: () => number | null): number[] {
  const drawn = ways.map(() => 0);
  for (let made = 0; made < count; made++) {
    const row = draw();
    const at = ways.findIndex((way) => way.row === row);
    drawn[at] = (drawn[at] ?? 0) + 1;
  }
  return drawn;
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`.padStart(7);
}
