/** A parsed JSON object whose fields nothing is known of yet. */
export type Json = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * `JSON.parse`, except that integers a double cannot hold become BigInts. Slower: for bodies that
 * may have such.
 */
export function parseExact(text: string): unknown {
  return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) => {
    const isInexact = typeof value === 'number' && !Number.isSafeInteger(value);
    return isInexact && /^-?\d+$/.test(context?.source ?? '') ? BigInt(context?.source ?? '') : value;
  });
}

/** `JSON.stringify`, BigInts as the integers they are. */
export function stringifyExact(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) => (typeof member === 'bigint' ? rawJson(`${member}`) : member));
}

/** ES2026, not yet in the type library. */
const { rawJSON: rawJson } = JSON as typeof JSON & { rawJSON(text: string): unknown };
