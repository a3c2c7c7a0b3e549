import { createHash } from 'node:crypto';
import { GatewayError } from '@llm-gateway/protocol';
import type { Endpoint } from './endpoint.ts';
import { type ChooseRoute, compilePolicy, type RoutePolicy } from './policy.ts';
import { type ReadFile, type RouteConfigEntry, type RouteFiles, readRows, show } from './route-config.ts';
import { comparableUrl, joinUrl } from './url.ts';

export interface RouteTable {
  /** `off` without a route config, whatever the flag says. */
  readonly policy: RoutePolicy;
  readonly endpoints: readonly Endpoint[];
  /** The fallback chain as indices of `endpoints`, in order; see `fallbacksAfter`. */
  readonly fallbacks: readonly number[];
  /** The base URLs of `endpoints` in a form that can be compared; empty for local ones. */
  readonly comparableUrls: readonly string[];
  /**
   * Whether instances know some model by another name than clients: a local row has an
   * `upstreamModel`.
   */
  readonly renamesLocally: boolean;
  /**
   * Fingerprint of all that gives an index its meaning. Keys are not part of it: it travels and is
   * logged, and a rotated key must not make an ingress and a router disagree.
   */
  readonly endpointGeneration: string;
  /**
   * The same with all else that an ingress and a router must agree on: with a P/D protocol, that
   * and its mode.
   */
  readonly generation: string;
  readonly choose: ChooseRoute;
}

export type RouteTableReading =
  | { readonly table: RouteTable; readonly warnings: readonly string[] }
  | { readonly mistakes: readonly string[] };

/**
 * Reads `--route-policy` and `--route-config` (JSON, or `@FILE` read through `read`). Gives the
 * table, with warnings about what was ignored, or every mistake found, one line each. No line holds
 * an api_key.
 */
export function readRouteTable(policy: string, config: string, read: ReadFile | RouteFiles): RouteTableReading {
  const rows = readRows(config, typeof read === 'function' ? { readFile: read } : read);
  const { entries, keys, warnings } = rows;
  const mistakes = [...policyMistakes(policy, entries), ...rows.mistakes];
  if (mistakes.length > 0) return { mistakes };

  const endpoints = (entries as readonly RouteConfigEntry[]).map((entry, index) =>
    toEndpoint(entry, { index, apiKey: keys.get(index) ?? entry.api_key ?? '' }),
  );
  const effective: RoutePolicy = endpoints.length === 0 || policy === '' ? 'off' : (policy as RoutePolicy);
  if (policy !== '' && effective === 'off') {
    warnings.push(`--route-policy: ${policy} has no effect without a --route-config`);
  }
  if (effective === 'weight' && endpoints.every((endpoint) => endpoint.weight === 0)) {
    warnings.push('--route-config: no endpoint has a weight, so no request has a route but the fallback chain');
  }
  if (effective === 'prefix') warnings.push(...unreachedAliases(endpoints));
  return { table: makeTable(effective, endpoints), warnings };
}

/** Names that an earlier row takes: the first of equals wins. */
function unreachedAliases(endpoints: readonly Endpoint[]): string[] {
  const takenBy = new Map<string, number>();
  const warnings: string[] = [];
  for (const { index, prefix, aliases } of endpoints) {
    for (const alias of aliases) {
      const taken = takenBy.get(alias);
      if (taken === undefined) continue;
      warnings.push(`--route-config[${index}].aliases: ${show(alias)} has no effect, row ${taken} takes it`);
    }
    for (const name of [prefix, ...aliases]) if (!takenBy.has(name)) takenBy.set(name, index);
  }
  return warnings;
}

interface RouteFlags {
  readonly routePolicy: string;
  readonly routeConfig: string;
}

interface PdFlags {
  readonly pdDisaggProtocol: string;
  readonly separatePdScheduling: boolean;
}

/**
 * The mistakes alone, for the check of a service's flags before it starts: those of the rows, and
 * those between them and the policy. The second needs both flags, the first one of them.
 */
export function routeChecks(
  files: RouteFiles,
): readonly [(values: Pick<RouteFlags, 'routeConfig'>) => string[], (values: RouteFlags) => string[]] {
  return [
    ({ routeConfig }) => [...readRows(routeConfig, files).mistakes],
    ({ routePolicy, routeConfig }) => policyMistakes(routePolicy, readRows(routeConfig, files).entries),
  ];
}

function policyMistakes(policy: string, entries: readonly unknown[]): string[] {
  if (policy !== '' && policy !== 'weight' && policy !== 'prefix') {
    return [`--route-policy: read ${show(policy)}, allowed: weight, prefix, or empty for none`];
  }
  if (policy !== '' || entries.length === 0) return [];
  return ['--route-policy: read nothing although --route-config is set, allowed: weight or prefix'];
}

/** As `readRouteTable`, with the generation of the P/D flags. */
export function readRoutes(values: RouteFlags & Partial<PdFlags>, read: ReadFile | RouteFiles): RouteTableReading {
  const reading = readRouteTable(values.routePolicy, values.routeConfig, read);
  const { pdDisaggProtocol: protocol = '', separatePdScheduling: staged = false } = values;
  if ('mistakes' in reading || protocol === '') return reading;
  const { table, warnings } = reading;
  return { table: { ...table, generation: fingerprint([table.endpointGeneration, protocol, staged]) }, warnings };
}

/**
 * The table of flags that were checked before; throws when they are wrong after all, as when a file
 * changed meanwhile.
 * @param warn receives a line for everything ignored; none contains an api_key
 */
export function routeTable(
  values: RouteFlags & Partial<PdFlags>,
  read: ReadFile | RouteFiles,
  warn: (line: string) => void = () => {},
): RouteTable {
  const reading = readRoutes(values, read);
  if ('mistakes' in reading) throw new GatewayError('invalid_config', reading.mistakes.join('; '));
  for (const warning of reading.warnings) warn(warning);
  return reading.table;
}

function fingerprint(meaning: unknown): string {
  return createHash('sha256').update(JSON.stringify(meaning)).digest('hex').slice(0, 16);
}

/**
 * The fallback chain of a request for `target` (path and query) whose primary was the endpoint
 * `primary` (null: internal or unknown): config order, without the endpoints at which the request
 * would have the primary's URL and name of the model.
 */
export function fallbacksAfter(table: RouteTable, primary: number | null, target: string): readonly number[] {
  const failed = primary === null ? '' : (table.comparableUrls[primary] ?? '');
  if (failed === '' || table.fallbacks.length === 0) return table.fallbacks;
  const urlAt = (index: number) =>
    joinUrl(table.comparableUrls[index] ?? '', target, table.endpoints[index]?.addV1 ?? null);
  const nameAt = (index: number) => table.endpoints[index]?.upstreamModel ?? '';
  const failedUrl = urlAt(primary ?? -1);
  const failedName = nameAt(primary ?? -1);
  return table.fallbacks.filter((index) => urlAt(index) !== failedUrl || nameAt(index) !== failedName);
}

function makeTable(policy: RoutePolicy, endpoints: readonly Endpoint[]): RouteTable {
  const meaning = endpoints.map((e) => [
    ...[e.baseUrl, e.model, e.fallback, e.weight, e.prefix, e.forwardAuth],
    // Only where it is given: older processes know nothing of it.
    ...(e.addV1 === null ? [] : [e.addV1]),
    ...(e.upstreamModel === '' ? [] : [{ upstreamModel: e.upstreamModel }]),
    ...(e.aliases.length === 0 ? [] : [{ aliases: e.aliases }]),
  ]);
  const endpointGeneration = fingerprint([policy, meaning]);
  return {
    policy,
    endpoints,
    fallbacks: endpoints.filter((e) => e.fallback && !e.local).map((e) => e.index),
    comparableUrls: endpoints.map((e) => (e.local ? '' : comparableUrl(e.baseUrl))),
    renamesLocally: endpoints.some((e) => e.local && e.upstreamModel !== ''),
    endpointGeneration,
    generation: endpointGeneration,
    choose: compilePolicy(policy, endpoints),
  };
}

function toEndpoint(
  entry: RouteConfigEntry,
  { index, apiKey }: { readonly index: number; readonly apiKey: string },
): Endpoint {
  return {
    index,
    baseUrl: entry.base_url,
    apiKey,
    model: entry.model ?? '',
    upstreamModel: entry.upstream_model ?? '',
    aliases: entry.aliases ?? [],
    fallback: entry.fallback ?? false,
    weight: entry.weight ?? 0,
    prefix: entry.prefix ?? '',
    forwardAuth: entry.forward_auth ?? false,
    authHeader: entry.auth_header?.toLowerCase() ?? 'authorization',
    headers: Object.entries(entry.headers ?? {}).flatMap(([name, value]) => [name.toLowerCase(), value]),
    addV1: entry.add_v1 ?? null,
    timeoutMs: entry.timeout_ms ?? 0,
    local: entry.base_url === 'local',
  };
}
