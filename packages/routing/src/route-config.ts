import { hopByHopNames } from '@llm-gateway/http1';
import { jsonMistakePlace } from '@llm-gateway/protocol';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { isBaseUrl } from './url.ts';

/** A token of HTTP. */
const headerName = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$";

/** Without control characters, as it may become a line of a form. */
const modelName = '^[^\\x00-\\x1f\\x7f]{1,1024}$';
const aliasName = '^[^\\x00-\\x1f\\x7f]{0,1023}[^*\\x00-\\x1f\\x7f]$';

const RouteConfigEntry = Type.Object({
  base_url: Type.String({
    minLength: 1,
    description:
      '"local" for the instances of discovery, otherwise an absolute http or https URL without credentials; its query is added to each call',
  }),
  api_key: Type.Optional(
    Type.String({
      pattern: '^[\\x21-\\x7e]*$',
      description: "API key, replaces the client's credentials, see auth_header; printable ASCII without blanks",
    }),
  ),
  api_key_file: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'File with the api_key, instead of it; followed like the route config',
    }),
  ),
  model: Type.Optional(Type.String({ description: 'Reserved: listed, but never changes a request' })),
  upstream_model: Type.Optional(
    Type.String({
      pattern: modelName,
      description:
        "Replaces the request's model in calls of this row, and selects the instances of a local row; default: the client's model",
    }),
  ),
  aliases: Type.Optional(
    Type.Array(Type.String({ pattern: aliasName }), {
      maxItems: 100,
      uniqueItems: true,
      description:
        'Model names that the prefix policy routes to this row as if each were a prefix without *; listed in /v1/models',
    }),
  ),
  fallback: Type.Optional(Type.Boolean({ description: 'Whether the row is in the fallback chain, in config order' })),
  weight: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 1_000_000_000,
      description: 'Share of the requests under the weight policy, relative to the sum; 0: never chosen',
    }),
  ),
  prefix: Type.Optional(
    Type.String({
      description: 'Models under the prefix policy: an exact name, or a prefix ending in *',
    }),
  ),
  forward_auth: Type.Optional(
    Type.Boolean({
      description:
        "Whether to send the client's own credentials (Authorization, x-api-key, cookies …) to this endpoint if it has no api_key",
    }),
  ),
  auth_header: Type.Optional(
    Type.String({
      pattern: headerName,
      description:
        'Header for the api_key: authorization, the default, as Bearer; any other, such as x-api-key, with the key alone',
    }),
  ),
  headers: Type.Optional(
    Type.Record(Type.String({ pattern: headerName }), Type.String({ pattern: '^[\\x20-\\x7e]*$', maxLength: 8192 }), {
      maxProperties: 32,
      additionalProperties: false,
      description: "Headers added to each call, replacing the client's of the same names",
    }),
  ),
  add_v1: Type.Optional(
    Type.Boolean({
      description:
        'Whether to append /v1 of the path to a base_url that ends in no version; default: unless the base_url is known to take none',
    }),
  ),
  timeout_ms: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 86_400_000,
      description: 'Longest wait for the head of an answer, instead of --upstream-headers-timeout-ms',
    }),
  ),
});

/**
 * The value of `--route-config`, as published under `docs/schemas`. Fields it does not name are
 * ignored, with a warning.
 */
export const RouteConfig = Type.Array(RouteConfigEntry);
export type RouteConfigEntry = Static<typeof RouteConfigEntry>;

type EntryField = keyof RouteConfigEntry;

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

/** Headers that only the caller of the endpoint may set. */
function isReservedHeader(name: string): boolean {
  const lower = name.toLowerCase();
  return hopByHopNames.has(lower) || reservedNames.has(lower) || lower.startsWith('x-gateway-');
}

const reservedNames: ReadonlySet<string> = new Set(['host', 'content-length', 'expect', 'x-request-id']);

export type ReadFile = (path: string) => string;

/** What reading a route config needs from outside. */
export interface RouteFiles {
  /** The text of a file. Throws when it cannot be read. */
  readonly readFile: ReadFile;
  /** The name of `candidates` that was most likely meant; without it no suggestion is made. */
  readonly nearest?: (name: string, candidates: Iterable<string>) => string | undefined;
}

export interface Rows {
  /** Still unchecked where there are mistakes. */
  readonly entries: readonly unknown[];
  /** Those that are in files, by row. */
  readonly keys: ReadonlyMap<number, string>;
  readonly mistakes: readonly string[];
  readonly warnings: string[];
}

/** Reads and checks the rows of `--route-config`: JSON, or `@FILE`. */
export function readRows(config: string, { readFile, nearest }: RouteFiles): Rows {
  const mistakes: string[] = [];
  const warnings: string[] = [];
  const entries = parseConfig(config, readFile, mistakes);
  if (entries.length > 0) checkEntries(entries, { mistakes, warnings, nearest });
  return { entries, keys: readKeys(entries, readFile, mistakes), mistakes, warnings };
}

/** The file that a `--route-config` names, if it names one. */
export function routeConfigFile(config: string): string | undefined {
  const text = config.trim();
  return text.startsWith('@') ? text.slice(1) : undefined;
}

/** The files that the rows of a route config name; none for an invalid text. */
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

export function show(value: unknown): string {
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
