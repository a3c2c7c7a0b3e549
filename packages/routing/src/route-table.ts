import { createHash } from 'node:crypto';
import { hopByHopNames } from '@llm-gateway/http1';
import { GatewayError, jsonMistakePlace } from '@llm-gateway/protocol';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Endpoint } from './endpoint.ts';
import { type ChooseRoute, compilePolicy, type RoutePolicy } from './policy.ts';
import { comparableUrl, isBaseUrl, joinUrl } from './url.ts';

/** A token of HTTP. */
const headerName = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$";

/** Without control characters, as it may become a line of a form. */
const modelName = '^[^\\x00-\\x1f\\x7f]{1,1024}$';
const aliasName = '^[^\\x00-\\x1f\\x7f]{0,1023}[^*\\x00-\\x1f\\x7f]$';

const RouteConfigEntry = Type.Object({
  base_url: Type.String({
    minLength: 1,
    description:
      '"local" for the instances of discovery, else an absolute http or https URL without credentials; its query goes with each call',
  }),
  api_key: Type.Optional(
    Type.String({
      pattern: '^[\\x21-\\x7e]*$',
      description: "Sent in place of the client's credentials, see auth_header; printable ASCII without blanks",
    }),
  ),
  api_key_file: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'File that holds the api_key, in its place; followed like the route config',
    }),
  ),
  model: Type.Optional(
    Type.String({ description: "Carried, but never used to change a request: its model is the client's" }),
  ),
  upstream_model: Type.Optional(
    Type.String({
      pattern: modelName,
      description:
        "Takes the place of the request's model in calls of this row, and chooses among the instances of a local one; left out: the model stays the client's",
    }),
  ),
  aliases: Type.Optional(
    Type.Array(Type.String({ pattern: aliasName }), {
      maxItems: 100,
      uniqueItems: true,
      description:
        'Names of models that the prefix policy sends to this row as if each were its prefix, without *; listed in /v1/models',
    }),
  ),
  fallback: Type.Optional(Type.Boolean({ description: 'Member of the fallback chain, in config order' })),
  weight: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 1_000_000_000,
      description: 'Share of the requests under the weight policy, relative to the sum; 0 is never drawn',
    }),
  ),
  prefix: Type.Optional(
    Type.String({
      description: 'Models under the prefix policy: an exact name, or one that ends in * for all names that begin so',
    }),
  ),
  forward_auth: Type.Optional(
    Type.Boolean({
      description:
        "Send the client's own credentials (Authorization, x-api-key, cookies …) to this endpoint when it has no api_key",
    }),
  ),
  auth_header: Type.Optional(
    Type.String({
      pattern: headerName,
      description:
        'Header that holds the api_key: authorization, the default, as Bearer; any other, such as x-api-key, as it is',
    }),
  ),
  headers: Type.Optional(
    Type.Record(Type.String({ pattern: headerName }), Type.String({ pattern: '^[\\x20-\\x7e]*$', maxLength: 8192 }), {
      maxProperties: 32,
      additionalProperties: false,
      description: "Headers of each call, in place of the client's of the same names",
    }),
  ),
  add_v1: Type.Optional(
    Type.Boolean({
      description:
        'Whether /v1 of the path follows a base_url that ends in no version; left out: unless the base_url is known for taking none',
    }),
  ),
  timeout_ms: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 86_400_000,
      description: 'Longest wait for the head of its answer, in place of --upstream-headers-timeout-ms',
    }),
  ),
});

/**
 * The value of `--route-config`, as published under `docs/schemas`. Fields it does not name are
 * ignored, with a warning.
 */
export const RouteConfig = Type.Array(RouteConfigEntry);

type EntryField = keyof Static<typeof RouteConfigEntry>;

const allowed: Readonly<Record<EntryField, string>> = {
  base_url: '"local" or an absolute http or https URL in printable ASCII without fragment or credentials',
  api_key: 'a string of printable ASCII without blanks',
  api_key_file: 'the path of a readable file that holds printable ASCII without blanks, and no api_key beside it',
  model: 'a string',
  upstream_model: 'a name of 1 to 1024 characters, none of them a control character',
  aliases:
    'an array of at most 100 different names of 1 to 1024 characters, none of them a control character and * not the last',
  fallback: 'true or false',
  weight: 'an integer from 0 to 1000000000',
  prefix: 'a string',
  forward_auth: 'true or false',
  auth_header: 'the name of a header, and none that belongs to HTTP itself or to the gateway',
  headers:
    'an object of at most 32 headers and their values, printable ASCII, and none that belongs to HTTP itself or to the gateway',
  add_v1: 'true or false',
  timeout_ms: 'an integer from 1 to 86400000',
};

/** Of whatever calls the endpoint, and of nobody else. */
function isReservedHeader(name: string): boolean {
  const lower = name.toLowerCase();
  return hopByHopNames.has(lower) || reservedNames.has(lower) || lower.startsWith('x-gateway-');
}

const reservedNames: ReadonlySet<string> = new Set(['host', 'content-length', 'expect', 'x-request-id']);

export interface RouteTable {
  /** `off` without a route config, whatever the flag says. */
  readonly policy: RoutePolicy;
  readonly endpoints: readonly Endpoint[];
  /** The fallback chain as indices of `endpoints`, in order; see `fallbacksAfter`. */
  readonly fallbacks: readonly number[];
  /** The base URLs of `endpoints` in a form that can be compared; empty for local ones. */
  readonly comparableUrls: readonly string[];
  /** Whether instances know some model by another name than clients: a local row has an `upstreamModel`. */
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

type ReadFile = (path: string) => string;

/** What reading a route config needs from outside. */
export interface RouteFiles {
  /** The text of a file. Throws when it cannot be read. */
  readonly readFile: ReadFile;
  /** The name of `candidates` that was most likely meant; without it no suggestion is made. */
  readonly nearest?: (name: string, candidates: Iterable<string>) => string | undefined;
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

  const endpoints = (entries as Static<typeof RouteConfig>).map((entry, index) =>
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

interface Rows {
  /** Still unchecked where there are mistakes. */
  readonly entries: readonly unknown[];
  /** Those that are in files, by row. */
  readonly keys: ReadonlyMap<number, string>;
  readonly mistakes: readonly string[];
  readonly warnings: string[];
}

function readRows(config: string, { readFile, nearest }: RouteFiles): Rows {
  const mistakes: string[] = [];
  const warnings: string[] = [];
  const entries = parseConfig(config, readFile, mistakes);
  if (entries.length > 0) checkEntries(entries, { mistakes, warnings, nearest });
  return { entries, keys: readKeys(entries, readFile, mistakes), mistakes, warnings };
}

function policyMistakes(policy: string, entries: readonly unknown[]): string[] {
  if (policy !== '' && policy !== 'weight' && policy !== 'prefix') {
    return [`--route-policy: read ${show(policy)}, allowed: weight, prefix, or empty for none`];
  }
  if (policy !== '' || entries.length === 0) return [];
  return ['--route-policy: read nothing beside a --route-config, allowed: weight or prefix'];
}

/** As `readRouteTable`, with the generation of the P/D flags. */
export function readRoutes(values: RouteFlags & Partial<PdFlags>, read: ReadFile | RouteFiles): RouteTableReading {
  const reading = readRouteTable(values.routePolicy, values.routeConfig, read);
  const { pdDisaggProtocol: protocol = '', separatePdScheduling: staged = false } = values;
  if ('mistakes' in reading || protocol === '') return reading;
  const { table, warnings } = reading;
  return { table: { ...table, generation: fingerprint([table.endpointGeneration, protocol, staged]) }, warnings };
}

/** The file that a `--route-config` names, if it names one. */
export function routeConfigFile(config: string): string | undefined {
  const text = config.trim();
  return text.startsWith('@') ? text.slice(1) : undefined;
}

/** The files that the rows of a route config name. Of a text that is none: no file. */
export function filesOfRows(text: string): readonly string[] {
  let rows: unknown;
  try {
    rows = JSON.parse(text);
  } catch {
    return [];
  }
  return Array.isArray(rows) ? rows.flatMap((row: unknown) => keyFileOf(row) ?? []) : [];
}

function keyFileOf(row: unknown): string | undefined {
  const path = typeof row === 'object' && row !== null && 'api_key_file' in row ? row.api_key_file : undefined;
  return typeof path === 'string' && path !== '' ? path : undefined;
}

/**
 * The table of flags that were checked before; throws when they are wrong after all, as when a file
 * changed meanwhile.
 * @param warn is told what was ignored, a line each; none holds an api_key
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

/** The keys that are in files, by row. */
function readKeys(
  entries: readonly unknown[],
  readFile: (path: string) => string,
  mistakes: string[],
): ReadonlyMap<number, string> {
  const keys = new Map<number, string>();
  for (const [index, entry] of entries.entries()) {
    const path = keyFileOf(entry);
    if (path === undefined) continue;
    const at = `--route-config[${index}].api_key_file: read ${show(path)}, `;
    if (typeof entry === 'object' && entry !== null && 'api_key' in entry) {
      mistakes.push(`${at}beside an api_key, allowed: one of the two`);
      continue;
    }
    try {
      const key = readFile(path).replace(/\r?\n$/, '');
      if (/^[\x21-\x7e]+$/.test(key)) keys.set(index, key);
      else mistakes.push(`${at}which holds something else than a key, allowed: ${allowed.api_key}`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      mistakes.push(`${at}which cannot be read (${reason}), allowed: a readable file that holds the key`);
    }
  }
  return keys;
}

function toEndpoint(
  entry: Static<typeof RouteConfigEntry>,
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

/** The rows, still unchecked; none after a mistake. */
function parseConfig(config: string, readFile: (path: string) => string, mistakes: string[]): readonly unknown[] {
  let text = config.trim();
  let source = '--route-config';
  if (text.startsWith('@')) {
    const path = text.slice(1);
    source += ` @${path}`;
    try {
      // Lines at its beginning count in the place of a mistake.
      text = readFile(path).trimEnd();
      // Emptied by accident, most likely: it would send every request to the instances.
      if (text === '') mistakes.push(`${source}: read an empty file, allowed: a JSON array of endpoints, [] for none`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      mistakes.push(`${source}: cannot be read (${reason}), allowed: a readable file that holds a JSON array`);
      return [];
    }
  }
  if (text === '') return [];
  try {
    const value: unknown = JSON.parse(text);
    if (Array.isArray(value)) return value;
    mistakes.push(`${source}: read ${kindOf(value)}, allowed: a JSON array of endpoints`);
  } catch {
    const place = jsonMistakePlace(text);
    mistakes.push(`${source}: read text that is not JSON at ${place}, allowed: a JSON array of endpoints`);
  }
  return [];
}

function checkEntries(
  entries: readonly unknown[],
  {
    mistakes,
    warnings,
    nearest,
  }: { mistakes: string[]; warnings: string[]; nearest: RouteFiles['nearest'] | undefined },
): void {
  const check = Compile(RouteConfigEntry);
  for (const [index, entry] of entries.entries()) {
    const at = `--route-config[${index}]`;
    if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) {
      mistakes.push(`${at}: read ${kindOf(entry)}, allowed: an object`);
      continue;
    }
    const fields: Readonly<Record<string, unknown>> = { ...entry };
    const wrong = new Set(check.Errors(entry).map((error) => error.instancePath.split('/')[1] || 'base_url'));
    const { base_url: base, auth_header: header } = fields;
    if (typeof base === 'string' && base !== 'local' && !isBaseUrl(base, { withQuery: true })) wrong.add('base_url');
    if (typeof header === 'string' && isReservedHeader(header)) wrong.add('auth_header');
    if (Object.keys(Object(fields.headers)).some(isReservedHeader)) wrong.add('headers');
    for (const [field, what] of Object.entries(allowed)) {
      if (wrong.has(field)) mistakes.push(`${at}.${field}: read ${showField(field, fields[field])}, allowed: ${what}`);
    }
    for (const field of Object.keys(fields)) {
      if (Object.hasOwn(allowed, field)) continue;
      const near = nearest?.(field, Object.keys(allowed));
      const advice = near === undefined ? '' : `, did you mean ${near}?`;
      warnings.push(`${at}.${show(field)}: ignored, there is no such field${advice}`);
    }
  }
}

function showField(field: string, value: unknown): string {
  if (field === 'api_key') return `${kindOf(value)} (not shown)`;
  // Of a whole header the key would be seen.
  if (field === 'auth_header' && typeof value === 'string' && !/^[\w-]*$/.test(value)) return 'a string (not shown)';
  // Credentials and query of a refused URL may be secrets too.
  if (field === 'base_url' && typeof value === 'string') {
    return show(value.replace(/\/\/.*@/s, '//…@').replace(/[?#].+$/s, (tail) => `${tail.charAt(0)}…`));
  }
  return show(value);
}

function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'object' && value !== null) return kindOf(value);
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length <= 100 ? text : `${text.slice(0, 99)}…`;
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
