/** Headers as Node and undici give them raw: name, value, name, value, … */
export type FlatHeaders = string[];

/** RFC 9110 section 7.6.1, and the older ones that proxies still meet. */
const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

const nothing: ReadonlySet<string> = new Set();

/**
 * What of a message's headers goes on to the next hop: everything but hop-by-hop headers, those that `Connection` names, and `drop` (lower-case names).
 * Order, case and repetition stay.
 */
export function endToEndHeaders(raw: readonly string[], drop: ReadonlySet<string> = nothing): FlatHeaders {
  const named = namedByConnection(raw);
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string;
    const lower = name.toLowerCase();
    if (hopByHop.has(lower) || drop.has(lower) || named?.has(lower)) continue;
    kept.push(name, raw[i + 1] as string);
  }
  return kept;
}

function namedByConnection(raw: readonly string[]): Set<string> | undefined {
  let named: Set<string> | undefined;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string;
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue;
    const value = (raw[i + 1] as string).toLowerCase();
    if (value === 'keep-alive' || value === 'close') continue;
    named ??= new Set();
    for (const token of value.split(',')) named.add(token.trim());
  }
  return named;
}

/** The first value of a header, by its lower-case name. */
export function headerValue(headers: readonly string[], lowerName: string): string | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string;
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return headers[i + 1];
  }
  return undefined;
}
