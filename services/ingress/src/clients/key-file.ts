import { hash, randomBytes, timingSafeEqual } from 'node:crypto';
import { jsonMistakePlace } from '@llm-gateway/protocol';
import { nearest } from '@llm-gateway/runtime';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { TLocalizedValidationError } from 'typebox/error';
import { type RequestClass, requestClasses } from '../admission/fair-queue.ts';

const Limit = (description: string) => Type.Optional(Type.Integer({ minimum: 0, maximum: 1e12, description }));

const KeyRow = Type.Object(
  {
    name: Type.String({
      pattern: '^[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,127}$',
      description: 'Who has the key, in logs, metrics and usage records; unique in the file',
    }),
    hash: Type.String({
      pattern: '^sha256:[0-9a-f]{64}$',
      description: 'SHA-256 of the key, as `llm-gateway keys new` prints it',
    }),
    models: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 1024 }), {
        maxItems: 1000,
        description: 'Models that the key may use: exact names, or prefixes that end in *; left out: all',
      }),
    ),
    rpm: Limit('Requests in any 60 seconds, over all ingresses; left out: no limit'),
    tpm: Limit('Tokens in any 60 seconds, of prompts and answers, over all ingresses; left out: no limit'),
    concurrent: Limit('Requests in flight at once, over all ingresses; left out: no limit'),
    class: Type.Optional(
      Type.Enum([...requestClasses], {
        description:
          'Highest class in which its requests wait for full instances; default: default. A request may ask for a later one with `x-gateway-class`',
      }),
    ),
    expires: Type.Optional(
      Type.String({ description: 'When the key stops to be valid, in RFC 3339: 2027-01-31T00:00:00Z' }),
    ),
    disabled: Type.Optional(Type.Boolean({ description: 'Whether the key is refused for now' })),
    forward: Type.Optional(
      Type.Enum(['none', 'instance'], {
        description:
          'Who gets the credentials of the request as the client sent them: nobody (the default), or the instances',
      }),
    ),
  },
  { additionalProperties: false },
);

/** The file of `--client-keys`, as published under `docs/schemas`. */
export const ClientKeyFile = Type.Object(
  { keys: Type.Array(KeyRow, { maxItems: 100_000 }) },
  { additionalProperties: false },
);

/** Beyond it a file is not read. */
export const maxKeyFileBytes = 64 * 1024 * 1024;

/** The client of a request, and its rights. */
export interface Client {
  readonly name: string;
  /** Null: every model. */
  readonly models: ModelPatterns | null;
  /** Null: no limit. */
  readonly requestsPerMinute: number | null;
  readonly tokensPerMinute: number | null;
  readonly concurrentRequests: number | null;
  /** The first in which its requests may wait for instances. */
  readonly class: RequestClass;
  /** Milliseconds since the epoch; infinite for one that does not expire. */
  readonly expiresAtMs: number;
  readonly disabled: boolean;
  readonly forward: 'none' | 'instance';
}

interface Entry {
  readonly digest: Buffer;
  readonly client: Client;
}

/**
 * So much of a digest says where to look for it: not enough to find it out by measuring how long
 * that takes.
 */
const addressBytes = 4;

/** The clients of a file, by their keys. */
export class KeyTable {
  readonly #entries = new Map<number, Entry[]>();
  readonly #names = new Map<string, Client>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The client who has a key of this SHA-256; compared in constant time. */
  find(digest: Buffer): Client | undefined {
    for (const entry of this.#entries.get(digest.readUIntBE(0, addressBytes)) ?? []) {
      if (timingSafeEqual(entry.digest, digest)) return entry.client;
    }
    return undefined;
  }

  named(name: string): Client | undefined {
    return this.#names.get(name);
  }

  add(digest: Buffer, client: Client): void {
    this.#names.set(client.name, client);
    const address = digest.readUIntBE(0, addressBytes);
    const there = this.#entries.get(address);
    if (there === undefined) this.#entries.set(address, [{ digest, client }]);
    else there.push({ digest, client });
    this.#size++;
  }
}

/** Names of clients who show a token begin so: one must not use up the limits of a key. */
export const tokenNamePrefix = 'jwt:';
const validator = Compile(ClientKeyFile);
const maxMistakes = 20;
const dateTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;

/** Which models a client may name. */
export class ModelPatterns {
  readonly #exact: ReadonlySet<string>;
  readonly #prefixes: readonly string[];

  constructor(patterns: readonly string[]) {
    this.#exact = new Set(patterns.filter((pattern) => !pattern.endsWith('*')));
    this.#prefixes = patterns.filter((pattern) => pattern.endsWith('*')).map((pattern) => pattern.slice(0, -1));
  }

  allows(model: string): boolean {
    return this.#exact.has(model) || this.#prefixes.some((prefix) => model.startsWith(prefix));
  }
}

/**
 * The keys that a file's text holds, or every mistake in it, a line each. No mistake repeats a
 * value.
 */
export function readKeyFile(text: string): { readonly keys: KeyTable } | { readonly mistakes: readonly string[] } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { mistakes: [`it is not valid JSON at ${jsonMistakePlace(text)}`] };
  }
  if (!validator.Check(value)) {
    const mistakes = validator
      .Errors(value)
      // Says of a field that is not known what its row says too.
      .filter(({ message }) => message !== 'schema is false')
      .map((error) =>
        error.instancePath === '' && error.message === 'must be object'
          ? 'the file must be a JSON object with a list "keys"'
          : `${placeOf(error.instancePath, value)} ${error.message}${suggestion(error)}`,
      );
    return { mistakes: shortened([...new Set(mistakes)]) };
  }
  const { keys } = value as Static<typeof ClientKeyFile>;
  const mistakes: string[] = [];
  const table = new KeyTable();
  const names = new Set<string>();
  for (const [at, row] of keys.entries()) {
    const expiresAtMs = row.expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(row.expires);
    if (row.expires !== undefined && (!isDateTime(row.expires) || Number.isNaN(expiresAtMs))) {
      mistakes.push(`keys[${at}].expires (${row.name}) must be a date and time like 2027-01-31T00:00:00Z`);
    }
    if (names.has(row.name)) mistakes.push(`keys[${at}].name (${row.name}) is the name of another key`);
    if (row.name.startsWith(tokenNamePrefix)) {
      mistakes.push(`keys[${at}].name (${row.name}) must not begin with ${tokenNamePrefix}: names of tokens do`);
    }
    names.add(row.name);
    const digest = Buffer.from(row.hash.slice('sha256:'.length), 'hex');
    const other = table.find(digest);
    if (other !== undefined) mistakes.push(`keys[${at}].hash (${row.name}) is that of ${other.name}`);
    table.add(digest, clientOf(row, expiresAtMs));
  }
  return mistakes.length > 0 ? { mistakes: shortened(mistakes) } : { keys: table };
}

/** Whether there is such a day: `Date.parse` takes the 30th of February for a day in March. */
function isDateTime(text: string): boolean {
  if (!dateTime.test(text)) return false;
  const day = text.slice(0, 'YYYY-MM-DD'.length);
  const date = new Date(`${day}T00:00:00Z`);
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(day);
}

function clientOf(row: Static<typeof KeyRow>, expiresAtMs: number): Client {
  return {
    name: row.name,
    models: row.models === undefined ? null : new ModelPatterns(row.models),
    requestsPerMinute: row.rpm ?? null,
    tokensPerMinute: row.tpm ?? null,
    concurrentRequests: row.concurrent ?? null,
    class: row.class ?? 'default',
    expiresAtMs,
    disabled: row.disabled ?? false,
    forward: row.forward ?? 'none',
  };
}

/** `/keys/3/rpm` as `keys[3].rpm (team-a)`; the name as far as it is one. */
function placeOf(path: string, value: unknown): string {
  const [, list, index, ...rest] = path.split('/');
  if (list === undefined || list === '') return 'the file';
  if (index === undefined) return list;
  const rows = (value as { readonly keys?: unknown }).keys;
  const row: unknown = Array.isArray(rows) ? rows[Number(index)] : undefined;
  const name = typeof row === 'object' && row !== null && 'name' in row ? row.name : undefined;
  const field = rest.map((part) => (/^\d+$/.test(part) ? `[${part}]` : `.${part}`)).join('');
  const whose = typeof name === 'string' && /^[\w.@:/+-]{1,128}$/.test(name) ? ` (${name})` : '';
  return `${list}[${index}]${field}${whose}`;
}

/**
 * Of a field that is not known. It is named where it is near to a known one: any other might be a
 * secret.
 */
function suggestion(error: TLocalizedValidationError): string {
  if (error.keyword !== 'additionalProperties') return '';
  const known = Object.keys((error.instancePath === '' ? ClientKeyFile : KeyRow).properties);
  const advice = error.params.additionalProperties.flatMap((name) => {
    const near = nearest(name, known);
    return near === undefined ? [] : [`; of ${name}: did you mean ${near}?`];
  });
  return advice.join('');
}

function shortened(mistakes: readonly string[]): readonly string[] {
  if (mistakes.length <= maxMistakes) return mistakes;
  return [...mistakes.slice(0, maxMistakes), `and ${mistakes.length - maxMistakes} more mistakes`];
}

/** The SHA-256 of a key. */
export function digestOf(key: string): Buffer {
  return hash('sha256', key, 'buffer');
}

const keyPrefix = 'sk-gw-';
const keyBytes = 32;

/** A new key, which nobody can guess, and the `hash` of its row. */
export function newKey(): { readonly key: string; readonly hash: string } {
  const key = keyPrefix + randomBytes(keyBytes).toString('base64url');
  return { key, hash: `sha256:${digestOf(key).toString('hex')}` };
}
