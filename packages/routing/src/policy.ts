import type { Endpoint } from './endpoint.ts';

/**
 * Where the policy sends a request; `endpoint` is an index into the route config, null when no row
 * of it was needed.
 */
export type Route =
  | { readonly route: 'internal'; readonly endpoint: number | null }
  | { readonly route: 'external'; readonly endpoint: number }
  | { readonly route: 'unknown' };

/** `random` gives numbers in [0, 1). */
export type ChooseRoute = (model: string | null, random: () => number) => Route;

export type RoutePolicy = 'off' | 'weight' | 'prefix';

const internal: Route = { route: 'internal', endpoint: null };
const unknown: Route = { route: 'unknown' };

/** Everything that does not depend on the request is worked out here, once. */
export function compilePolicy(policy: RoutePolicy, endpoints: readonly Endpoint[]): ChooseRoute {
  switch (policy) {
    case 'off':
      return () => internal;
    case 'weight':
      return byWeight(endpoints);
    case 'prefix':
      return byPrefix(endpoints);
  }
}

function routeTo({ index, local }: Endpoint): Route {
  return { route: local ? 'internal' : 'external', endpoint: index };
}

/**
 * A draw proportional to the weights. A weight of zero is never drawn; with no weight at all the
 * route is unknown.
 */
function byWeight(endpoints: readonly Endpoint[]): ChooseRoute {
  const drawn = endpoints.filter((endpoint) => endpoint.weight > 0);
  const routes = drawn.map(routeTo);
  let sum = 0;
  const bounds = drawn.map((endpoint) => {
    sum += endpoint.weight;
    return sum;
  });
  return (_model, random) => {
    const point = random() * sum;
    return routes[bounds.findIndex((bound) => point < bound)] ?? unknown;
  };
}

/**
 * A pattern without `*` at its end matches exactly and beats every wildcard; otherwise the longest
 * prefix wins, and the first of equals. An alias matches as a pattern without `*` does. An empty
 * pattern matches nothing: such a row is there for its aliases and the fallback chain.
 */
function byPrefix(endpoints: readonly Endpoint[]): ChooseRoute {
  const exact = new Map<string, Route>();
  const wildcards = new Map<string, Route>();
  for (const endpoint of endpoints) {
    for (const alias of endpoint.aliases) if (!exact.has(alias)) exact.set(alias, routeTo(endpoint));
    if (endpoint.prefix === '') continue;
    const isWildcard = endpoint.prefix.endsWith('*');
    const patterns = isWildcard ? wildcards : exact;
    const text = isWildcard ? endpoint.prefix.slice(0, -1) : endpoint.prefix;
    if (!patterns.has(text)) patterns.set(text, routeTo(endpoint));
  }
  // One lookup for each different length rather than a comparison with each pattern.
  const lengths = [...new Set([...wildcards.keys()].map((text) => text.length))].sort((a, b) => b - a);
  return (model) => {
    if (model === null || model === '') return internal;
    const whole = exact.get(model);
    if (whole !== undefined) return whole;
    for (const length of lengths) {
      const match = length <= model.length ? wildcards.get(model.slice(0, length)) : undefined;
      if (match !== undefined) return match;
    }
    return unknown;
  };
}
