import { isObject, type Json, stringifyExact } from './json.ts';

/** A schema that refers to itself without end gets null at this depth. */
const maxDepth = 32;
/** In all: a schema that asks for more gets null in place of what is above. */
const maxValues = 10_000;
const maxCharacters = 1_000_000;

/** What a string of each format can be; other formats get the empty string. */
const formats: Readonly<Record<string, string>> = {
  date: '2000-01-01',
  'date-time': '2000-01-01T00:00:00Z',
  time: '00:00:00Z',
  duration: 'P1D',
  email: 'a@example.com',
  hostname: 'example.com',
  ipv4: '127.0.0.1',
  ipv6: '::1',
  uri: 'https://example.com/',
  uuid: '00000000-0000-4000-8000-000000000000',
};

/**
 * The simplest value that a JSON Schema allows: required members only, first enum values, least
 * numbers and lengths. Reads what tools and output formats use of JSON Schema 2020-12; `pattern`
 * and `not` are not understood.
 */
export function simplestValue(schema: unknown): unknown {
  const root = schema;
  let values = 0;
  let characters = 0;
  const affordable = (value: unknown): unknown => {
    if (characters <= maxCharacters) characters += stringifyExact(value).length;
    return characters > maxCharacters ? null : value;
  };

  const simplest = (one: unknown, depth: number): unknown => {
    values += 1;
    if (depth > maxDepth || values > maxValues) return null;
    if (!isObject(one)) return {};
    if (typeof one.$ref === 'string') return simplest(resolved(root, one.$ref), depth + 1);
    if ('const' in one) return affordable(one.const);
    if (Array.isArray(one.enum) && one.enum.length > 0) return affordable(one.enum[0]);
    const { anyOf, oneOf, allOf, ...rest } = one;
    const [alternative] = [anyOf, oneOf].flatMap((list) => (Array.isArray(list) ? list : []));
    const all = Array.isArray(allOf) ? allOf : [];
    if (alternative === undefined && all.length === 0) {
      const value = plainValue(rest, (inner) => simplest(inner, depth + 1));
      return typeof value === 'string' ? affordable(value) : value;
    }
    const parts = [alternative ?? {}, ...all].map((part) => followed(root, part));
    return simplest(parts.reduce<Json>(merged, rest), depth + 1);
  };

  return simplest(schema, 0);
}

function plainValue(schema: Json, inner: (schema: unknown) => unknown): unknown {
  switch (typeOf(schema)) {
    case 'string':
      return simplestString(schema);
    case 'integer':
      return simplestNumber(schema, 1);
    case 'number':
      return simplestNumber(schema, 0);
    case 'boolean':
      return false;
    case 'null':
      return null;
    case 'array': {
      const first = Array.isArray(schema.prefixItems) ? schema.prefixItems : [];
      const length = Math.min(Math.max(count(schema.minItems), 0), maxValues);
      return Array.from({ length }, (_, index) => inner(first[index] ?? schema.items ?? {}));
    }
    default: {
      const properties = isObject(schema.properties) ? schema.properties : {};
      const required = Array.isArray(schema.required) ? schema.required : [];
      const names = required.filter((name) => typeof name === 'string').slice(0, maxValues);
      // Not by assignment: `__proto__` may be a member like any other.
      return Object.fromEntries(names.map((name) => [name, inner(properties[name] ?? {})]));
    }
  }
}

function typeOf({ type, properties, items, prefixItems }: Json): unknown {
  if (Array.isArray(type)) return type.find((name) => name !== 'null') ?? 'null';
  if (type !== undefined) return type;
  if (properties === undefined && (items !== undefined || prefixItems !== undefined)) return 'array';
  return 'object';
}

function simplestString({ format, minLength }: Json): string {
  const text = (typeof format === 'string' ? formats[format] : undefined) ?? '';
  return text.padEnd(Math.min(count(minLength), maxCharacters), 'a');
}

/** The number nearest to zero from `minimum` to `maximum`; with `step` an integer. */
function simplestNumber(schema: Json, step: number): number {
  const multiple = typeof schema.multipleOf === 'number' && schema.multipleOf > 0 ? schema.multipleOf : step;
  const next = multiple || 1;
  const { minimum, exclusiveMinimum: above, maximum, exclusiveMaximum: below } = schema;
  const up = (value: number) => (multiple ? Math.ceil(value / multiple) * multiple : value);
  const down = (value: number) => (multiple ? Math.floor(value / multiple) * multiple : value);
  let value = 0;
  if (typeof minimum === 'number' && value < minimum) value = up(minimum);
  if (typeof above === 'number' && value <= above) value = up(above) > above ? up(above) : up(above) + next;
  if (typeof maximum === 'number' && value > maximum) value = down(maximum);
  if (typeof below === 'number' && value >= below) value = down(below) < below ? down(below) : down(below) - next;
  return value;
}

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? Math.ceil(value) : 0;
}

/**
 * The members of both schemas, the first one's where both have one; what objects have and require
 * adds up.
 */
function merged(first: Json, second: unknown): Json {
  if (!isObject(second)) return first;
  const result: Record<string, unknown> = { ...second, ...first };
  if (isObject(first.properties) && isObject(second.properties)) {
    result.properties = { ...second.properties, ...first.properties };
  }
  if (Array.isArray(first.required) && Array.isArray(second.required)) {
    result.required = [...new Set([...first.required, ...second.required])];
  }
  return result;
}

/** The schema that a chain of references ends at; one that goes in a circle is left where it is. */
function followed(root: unknown, schema: unknown): unknown {
  let found = schema;
  for (let step = 0; step < maxDepth && isObject(found) && typeof found.$ref === 'string'; step += 1) {
    found = resolved(root, found.$ref);
  }
  return found;
}

/** What `#/$defs/…` or `#` of the root means; undefined when it means nothing. */
function resolved(root: unknown, reference: string): unknown {
  if (!reference.startsWith('#')) return undefined;
  let found = root;
  for (const part of reference.slice(1).split('/').slice(1)) {
    const name = decoded(part).replaceAll('~1', '/').replaceAll('~0', '~');
    found = isObject(found) && Object.hasOwn(found, name) ? found[name] : undefined;
  }
  return found;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
