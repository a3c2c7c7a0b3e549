import type { Endpoint } from './endpoint.ts';
import type { Route } from './policy.ts';
import { fallbacksAfter, type RouteTable } from './route-table.ts';
import { joinUrl, shownUrl } from './url.ts';

/** Where a part of the requests goes. */
export interface Way {
  /** Row of the route config; null: none was needed. */
  readonly row: number | null;
  /** `internal`, `unknown`, or the URL that is called. */
  readonly to: string;
  /** Part of the requests, from 0 to 1. */
  readonly share: number;
  readonly why: string;
  /** The name that takes the place of the request's model there; left out: the client's own. */
  readonly upstreamModel?: string;
  /** The URLs that are tried when it fails, in order. */
  readonly fallbacks: readonly string[];
  /**
   * For each of those the name that takes the place of the model, empty for none; left out where
   * all are.
   */
  readonly fallbackModels?: readonly string[];
}

/**
 * Where requests for `model` at `target` (path and query) go, and why; the ways with the largest
 * shares first.
 */
export function explainRoute(table: RouteTable, model: string | null, target: string): readonly Way[] {
  const ways = table.policy === 'weight' ? weighed(table) : [{ route: table.choose(model, () => 0), share: 1 }];
  return ways
    .map(({ route, share }): Way => {
      const row = route.route === 'unknown' ? null : route.endpoint;
      const primary = route.route === 'external' ? route.endpoint : null;
      const to = primary === null ? route.route : urlOf(table, primary, target);
      const chain = fallbacksAfter(table, primary, target);
      const fallbacks = chain.map((index) => urlOf(table, index, target));
      const nameAt = (index: number | null) => (model ? (table.endpoints[index ?? -1]?.upstreamModel ?? '') : '');
      const upstreamModel = nameAt(row);
      const fallbackModels = chain.map(nameAt);
      return {
        ...{ row, to, share, why: reason(table, model, route), fallbacks },
        ...(upstreamModel !== '' && { upstreamModel }),
        ...(fallbackModels.some((name) => name !== '') && { fallbackModels }),
      };
    })
    .toSorted((a, b) => b.share - a.share);
}

/** Every row that is drawn, with its part. */
function weighed({ endpoints }: RouteTable): { route: Route; share: number }[] {
  const drawn = endpoints.filter(({ weight }) => weight > 0);
  const sum = drawn.reduce((total, { weight }) => total + weight, 0);
  if (sum === 0) return [{ route: { route: 'unknown' }, share: 1 }];
  return drawn.map(({ index, local, weight }) => ({
    route: { route: local ? 'internal' : 'external', endpoint: index },
    share: weight / sum,
  }));
}

function reason({ policy, endpoints }: RouteTable, model: string | null, route: Route): string {
  if (policy === 'off') return 'there is no route config';
  const row: Endpoint | undefined = route.route === 'unknown' ? undefined : endpoints[route.endpoint ?? -1];
  if (policy === 'weight') {
    return row === undefined
      ? 'no row has a weight'
      : `weight ${row.weight} of ${endpoints.reduce((sum, { weight }) => sum + weight, 0)}`;
  }
  if (model === null || model === '') return 'a request without a model is internal';
  if (row === undefined) return 'no prefix matches';
  if (row.prefix !== model && row.aliases.includes(model)) return `${model} is an alias of the row`;
  return row.prefix.endsWith('*')
    ? `${row.prefix} is the longest prefix that matches`
    : `${row.prefix} matches exactly`;
}

function urlOf({ endpoints }: RouteTable, index: number, target: string): string {
  const { baseUrl = '', addV1 = null } = endpoints[index] ?? {};
  return shownUrl(joinUrl(baseUrl, target, addV1));
}

/** A kind of requests, and where it went before and goes now. */
export interface Move {
  /** The models: a name, or a prefix that ends in `*` for those that no longer prefix takes. */
  readonly models: string;
  readonly before: Readonly<Record<string, number>>;
  readonly after: Readonly<Record<string, number>>;
}

/**
 * What moves between two tables: only models whose shares differ are named. Where requests go is
 * told by base URL.
 */
export function movesBetween(before: RouteTable, after: RouteTable): readonly Move[] {
  const patterns = new Set(
    [before, after].flatMap(({ policy, endpoints }) =>
      policy === 'prefix' ? endpoints.flatMap(({ prefix, aliases }) => [prefix, ...aliases]) : ['*'],
    ),
  );
  patterns.delete('');
  patterns.add('*');
  return [...patterns]
    .map((models) => ({ models, before: sharesOf(before, models), after: sharesOf(after, models) }))
    .filter((move) => !sameShares(move.before, move.after));
}

/**
 * No model has this in its name, so that of a prefix just those models are meant that no longer one
 * takes.
 */
const anyOther = '\u0000';

function sharesOf(table: RouteTable, models: string): Record<string, number> {
  const model = models.endsWith('*') ? models.slice(0, -1) + anyOther : models;
  const shares: Record<string, number> = {};
  for (const { row, to, share } of explainRoute(table, model, '')) {
    const name = to === 'internal' || to === 'unknown' ? to : shownUrl(table.endpoints[row ?? -1]?.baseUrl ?? to);
    shares[name] = (shares[name] ?? 0) + share;
  }
  return shares;
}

function sameShares(a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): boolean {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].every((name) => Math.abs((a[name] ?? 0) - (b[name] ?? 0)) < 1e-9);
}
