import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { catalogue } from './catalogue.ts';
import { Ask, isAsk } from './decision.ts';
import type { Codec } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * Golden encodings: what processes of earlier versions send. Each must be decoded for ever, so none
 * is ever changed or deleted. A file is `<subject>[.query|.reply][.<case>].json` and has the bytes
 * of the message, nothing else; of a job those of its fields.
 */
const folder = join(import.meta.dirname, '../fixtures');
const files = readdirSync(folder).sort();

interface Part {
  readonly name: string;
  readonly codec: Codec<unknown>;
}

const parts: readonly Part[] = catalogue.flatMap((message): Part[] =>
  message.kind === 'request'
    ? [
        { name: `${message.subject}.query`, codec: message.query },
        { name: `${message.subject}.reply`, codec: message.reply },
      ]
    : [{ name: message.subject, codec: message.payload }],
);

function isOf(file: string, { name }: Part): boolean {
  return (
    file === `${name}.json` || (file.startsWith(`${name}.`) && /^[a-z-]+\.json$/.test(file.slice(name.length + 1)))
  );
}

/** Objects whose keys are ids, so that none is unknown. */
const maps = new Set(['seen', 'inFlight', 'leased', 'waiting']);

/** What a later version could send: every object has fields that nobody here knows. */
function fromTheFuture(value: unknown, key = ''): unknown {
  if (Array.isArray(value)) return value.map((item) => fromTheFuture(item));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, field]): [string, unknown] => [name, fromTheFuture(field, name)]);
  return Object.fromEntries(maps.has(key) ? entries : [...entries, ['unknown', { deep: [1] }]]);
}

/** The names of all fields that a schema declares, or that a value has. */
function fieldNames(node: unknown, declared: boolean, key = ''): string[] {
  if (typeof node !== 'object' || node === null) return [];
  const isFields = !Array.isArray(node) && (declared ? key === 'properties' : !maps.has(key));
  const own = isFields ? Object.keys(node) : [];
  return [...own, ...Object.entries(node).flatMap(([name, child]) => fieldNames(child, declared, name))];
}

test('every subject has a message in the catalogue', () => {
  assert.deepEqual(catalogue.map(({ subject }) => subject).sort(), Object.values(subjects).sort());
});

test('every golden encoding is one of a message', () => {
  assert.deepEqual(
    files.filter((file) => !parts.some((part) => isOf(file, part))),
    [],
  );
});

for (const part of parts) {
  const { name, codec } = part;
  const own = files.filter((file) => isOf(file, part));

  suite(name, () => {
    test('has golden encodings, in which all of its fields occur', () => {
      const seen = new Set(
        own.flatMap((file) => fieldNames(JSON.parse(readFileSync(join(folder, file), 'utf8')), false)),
      );
      assert.deepEqual(
        fieldNames(codec.schema, true).filter((field) => !seen.has(field)),
        [],
      );
      assert.ok(own.length > 0);
    });

    for (const file of own) {
      const bytes = readFileSync(join(folder, file));

      test(`${file} is decoded, and encoded to the same bytes again`, () => {
        assert.equal(Buffer.from(codec.encode(codec.decode(bytes))).toString(), bytes.toString());
      });

      test(`${file} is decoded when a later version has added fields to it`, () => {
        const value: unknown = fromTheFuture(JSON.parse(bytes.toString()));
        assert.deepEqual(codec.decode(Buffer.from(JSON.stringify(value))), value);
      });
    }
  });
}

suite('the asks of the golden batches', () => {
  const asks = files
    .filter((file) => file.startsWith(`${subjects.routeDecide}.query.`))
    .flatMap((file): unknown[] => JSON.parse(readFileSync(join(folder, file), 'utf8')).asks);

  test('are understood, also with fields that were added to them', () => {
    assert.ok(asks.length > 0 && asks.every(isAsk) && asks.map((ask) => fromTheFuture(ask)).every(isAsk));
  });

  test('have all the fields of an ask', () => {
    const seen = new Set(asks.flatMap((ask) => fieldNames(ask, false)));
    assert.deepEqual(
      fieldNames(Ask, true).filter((field) => !seen.has(field)),
      [],
    );
  });
});
