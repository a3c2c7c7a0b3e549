import type { Endpoint } from './endpoint.ts';
import type { RouteTable } from './route-table.ts';
import { shownUrl } from './url.ts';

/** So many changes are named; of the rest the number. */
const maxNamed = 20;

/**
 * What differs between two route configs, in words, a line each: rows that came, went or moved,
 * fields with their values before and after. Of a key only the fact that it changed is shown.
 */
export function routeChanges(before: RouteTable, after: RouteTable): readonly string[] {
  const changes: string[] = [];
  if (before.policy !== after.policy) changes.push(`policy: ${before.policy} -> ${after.policy}`);
  const left = [...before.endpoints];
  const pairs = after.endpoints.map((row): [Endpoint | undefined, Endpoint] => [takeLike(row, left), row]);
  for (const row of left) changes.push(`row ${row.index} ${shownUrl(row.baseUrl)}: removed`);
  for (const [old, row] of pairs) {
    const at = `row ${row.index} ${shownUrl(row.baseUrl)}`;
    if (old === undefined) changes.push(`${at}: added${shape(row)}`);
    else changes.push(...fieldChanges(old, row).map((change) => `${at}: ${change}`));
  }
  if (changes.length <= maxNamed) return changes;
  return [...changes.slice(0, maxNamed), `and ${changes.length - maxNamed} more`];
}

/** The row that most likely was this one before, taken out of those that are left. */
function takeLike(row: Endpoint, left: Endpoint[]): Endpoint | undefined {
  const same = (one: Endpoint) => one.baseUrl === row.baseUrl;
  const at = [
    left.findIndex((one) => same(one) && one.prefix === row.prefix && one.model === row.model),
    left.findIndex(same),
  ].find((index) => index >= 0);
  return at === undefined ? undefined : left.splice(at, 1)[0];
}

function shape({ prefix, weight, fallback }: Endpoint): string {
  return `${prefix === '' ? '' : ` for ${prefix}`}${weight === 0 ? '' : `, weight ${weight}`}${fallback ? ', fallback' : ''}`;
}

function fieldChanges(before: Endpoint, after: Endpoint): string[] {
  const changes: string[] = [];
  const fields = [
    'prefix',
    'weight',
    'fallback',
    'model',
    'upstreamModel',
    'forwardAuth',
    'authHeader',
    'addV1',
    'timeoutMs',
  ] as const;
  for (const field of fields) {
    if (before[field] !== after[field]) changes.push(`${field} ${shown(before[field])} -> ${shown(after[field])}`);
  }
  if (before.apiKey !== after.apiKey) {
    changes.push(after.apiKey === '' ? 'key removed' : before.apiKey === '' ? 'key added' : 'key changed');
  }
  const names = (row: Endpoint) => JSON.stringify(row.aliases);
  if (names(before) !== names(after)) changes.push('aliases changed');
  if (before.headers.join('\n') !== after.headers.join('\n')) changes.push('headers changed');
  if (before.index !== after.index) changes.push(`was row ${before.index}`);
  return changes;
}

function shown(value: string | number | boolean | null): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 100)) : String(value);
}
