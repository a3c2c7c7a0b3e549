import { maxExplained } from '@llm-gateway/protocol';
import { checkRoutes, readRouteFile } from '@llm-gateway/route-config';
import { explainRoute, routeOptions, routeTable, type Way } from '@llm-gateway/routing';
import { defineCommand, exitCodes, outputOptions, runtimeOptions } from '@llm-gateway/runtime';
import type { Explanation } from '@llm-gateway/watch';
import { table } from '../operation/table.ts';
import { openView, viewGroups, viewMistakes } from '../operation/view.ts';

export const command = defineCommand({
  name: 'explain',
  description:
    'Says where requests for a model go by a route config, with which share, why, and what is tried when that fails; with --live, by the config and the load of a gateway that runs',
  example: 'llm-gateway explain --model Qwen3-32B --live # where such a request would go now',
  main: [
    'model',
    'path',
    'live',
    'prompt-bytes',
    'candidates',
    'count',
    'route-policy',
    'route-config',
    'nats-servers',
    'console',
    'json',
  ],
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
      live: {
        type: 'boolean',
        default: false,
        description: 'Ask a router of a running gateway, which also compares the engines; nothing is sent to them',
      },
      'prompt-bytes': {
        type: 'integer',
        default: 0,
        min: 0,
        max: 2 ** 30,
        description: 'With --live: bytes of the prompt, of which nothing is taken to be cached; 0: not known',
      },
      candidates: {
        type: 'integer',
        default: 20,
        min: 1,
        max: maxExplained,
        description: 'With --live: engines that are shown, at most',
      },
      config: runtimeOptions.config,
    },
    routeOptions,
    ...viewGroups,
    outputOptions,
  ],
  check: [...checkRoutes, (values) => (values.live ? viewMistakes(values) : [])],
  async run(values, { answer, tell, signal }) {
    const { model, path, count, routePolicy, routeConfig } = values;
    if (values.live) {
      await using view = await openView(values, signal);
      const prompt = values.promptBytes > 0 ? { prompt: { bytes: values.promptBytes } } : {};
      const query = { model: model === '' ? null : model, path, max: values.candidates, ...prompt };
      const found = await view.explain(query);
      answer(found, explanationText(found));
      return exitCodes.done;
    }
    const routes = routeTable({ routePolicy, routeConfig }, readRouteFile, tell);
    const name = model === '' ? null : model;
    const ways = explainRoute(routes, name, path);
    const drawn = count === 0 ? null : draws(ways, count, () => keyOf(routes.choose(name, Math.random)));
    const lines = ways.flatMap((way, at) => wayLines(way, drawn === null ? '' : `; ${drawn[at]} of ${count} drawn`));
    const json = ways.map((way, at) => ({ ...way, ...(drawn !== null && { drawn: drawn[at] }) }));
    answer({ model: name, path, generation: routes.generation, ways: json }, lines.join('\n'));
    return exitCodes.done;
  },
});

function wayLines(way: Way, drawn = ''): string[] {
  return [
    `${percent(way.share)} ${way.to}${way.row === null ? '' : ` (row ${way.row})`}${as(way.upstreamModel)}: ${way.why}${drawn}`,
    ...way.fallbacks.map(
      (url, index) => `       ${index === 0 ? 'then' : 'and '} ${url}${as(way.fallbackModels?.[index])}`,
    ),
  ];
}

function explanationText(found: Explanation): string {
  const { router, owner, generation, policy, ways, moreWays, pools } = found;
  const decides =
    owner === null || owner === router ? 'decides for these engines' : `answers for ${owner}, which decides`;
  return [
    `${router} ${decides}: ${policy}, route config ${generation.slice(0, 8)}`,
    ...ways.flatMap((way) => wayLines(way)),
    ...(moreWays > 0 ? [`        and ${moreWays} more`] : []),
    ...pools.flatMap((pool) => ['', poolText(pool)]),
  ].join('\n');
}

function poolText({ role, chosen, why, total, candidates }: Explanation['pools'][number]): string {
  const left = total - candidates.length;
  return [
    chosen === null ? `${role}: no engine can take it` : `${role}: ${chosen}, ${reasons[why]}`,
    table(
      ['INSTANCE', 'STATE', 'IN FLIGHT', 'WAITING', 'CACHED', 'ELSEWHERE', 'COST', 'LOAD', 'LEFT OUT'],
      candidates.map((one) => [
        one.instance,
        one.state,
        one.inFlight ?? '–',
        one.waiting === undefined ? '–' : Math.round(one.waiting),
        one.cached ?? '–',
        one.elsewhere ?? '–',
        one.cost === undefined ? '–' : Math.round(one.cost),
        one.factor === undefined ? '' : `× ${one.factor}`,
        one.out === undefined ? '' : outs[one.out],
      ]),
    ),
    ...(left > 0 ? [`and ${left} more`] : []),
  ].join('\n');
}

const reasons: Readonly<Record<Explanation['pools'][number]['why'], string>> = {
  cache: 'which has some of the prompt in its cache',
  load: 'which has the least to do',
  affinity: 'where its session is',
  only: 'the only one',
  turn: 'whose turn it is',
  probe: 'which is tried again',
};

const outs: Readonly<Record<NonNullable<Explanation['pools'][number]['candidates'][number]['out']>, string>> = {
  drain: 'drains',
  eject: 'ejected by hand',
  role: 'has another role',
  model: 'serves another model',
  no_decode: 'no engine decodes its model',
};

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
