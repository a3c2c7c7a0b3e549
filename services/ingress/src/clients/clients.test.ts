import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FieldInterest, parseRequestHead } from '@llm-gateway/http1';
import { Metrics } from '@llm-gateway/runtime';
import { temporaryFolder, until } from '@llm-gateway/testing';
import { type Asker, Clients } from './clients.ts';
import { newKey } from './key-file.ts';

const interest = new FieldInterest({ noted: ['authorization', 'x-api-key', 'api-key'], withheld: [] });
const headOf = (...fields: string[]) =>
  parseRequestHead(['POST / HTTP/1.1', 'host: a', ...fields].join('\r\n'), interest);

async function scene(rows: readonly object[]) {
  const path = join(temporaryFolder(), 'keys.json');
  const write = (keys: readonly object[]) => writeFileSync(path, JSON.stringify({ keys }));
  write(rows);
  const clients = await Clients.start(
    {
      ...{ clientKeys: `@${path}`, clientKeysRefreshIntervalMs: 10, clientJwtJwksUrl: '', clientJwtJwksFile: '' },
      ...{ clientJwtIssuer: '', clientJwtAudience: '', clientJwtClaims: '' },
    },
    { log: { info() {}, error() {} }, metrics: new Metrics() },
  );
  assert.ok(clients);
  return { clients, write };
}

/** A connection, and what was withheld of its last request. */
function connection() {
  const withheld: string[] = [];
  const asker: Asker = { request: { withhold: (key) => withheld.push(key) }, connection: {} };
  return { asker, withheld };
}

const invalid = { code: 'invalid_api_key' };

describe('a connection on which keys are shown', () => {
  it('is of whoever shows a key, one request after the other', async () => {
    const [a, b] = [newKey(), newKey()];
    const { clients } = await scene([
      { name: 'a', hash: a.hash },
      { name: 'b', hash: b.hash },
    ]);
    using _ = clients;
    const { asker, withheld } = connection();
    const nameOf = (...fields: string[]) => {
      const client = clients.identify(headOf(...fields), asker);
      assert.ok(!(client instanceof Promise));
      return client.name;
    };
    const bearer = `authorization: Bearer ${a.key}`;
    for (const [fields, name] of [
      [[bearer], 'a'],
      [[bearer], 'a'],
      [[`x-api-key: ${b.key}`], 'b'],
      [[`x-api-key: ${b.key}`], 'b'],
      // The first that is valid counts, wherever the last one was.
      [[`x-api-key: ${b.key}`, bearer], 'a'],
      [[`api-key: ${b.key}`, 'authorization: Bearer nonsense'], 'b'],
    ] as const) {
      assert.equal(nameOf(...fields), name);
    }
    assert.deepEqual(
      withheld,
      [a, a, b, b, a, b].map(({ key }) => key),
    );
    for (const wrong of [`${bearer}x`, bearer.slice(0, -1), `authorization: Basic ${a.key}`, `x-api-key: ${bearer}`]) {
      assert.throws(() => nameOf(wrong), invalid, wrong);
      assert.equal(nameOf(bearer), 'a');
    }
  });

  it('does not outlive a key: of a file that changes the new one counts', async () => {
    const { key, hash } = newKey();
    const { clients, write } = await scene([{ name: 'a', hash }]);
    using _ = clients;
    const { asker } = connection();
    const head = headOf(`x-api-key: ${key}`);
    const identify = () => clients.identify(head, asker);
    assert.equal((identify() as { name: string }).name, 'a');
    write([{ name: 'renamed', hash }]);
    await until(() => (identify() as { name: string }).name === 'renamed');
    write([{ name: 'renamed', hash, disabled: true }]);
    await until(() => {
      try {
        void identify();
        return false;
      } catch {
        return true;
      }
    });
    assert.throws(identify, invalid);
  });

  it('withholds also what is refused', async () => {
    const { clients } = await scene([{ name: 'a', hash: newKey().hash }]);
    using _ = clients;
    const { asker, withheld } = connection();
    assert.throws(
      () => clients.identify(headOf('authorization: Bearer sk-of-another', 'api-key: other'), asker),
      invalid,
    );
    assert.deepEqual(withheld, ['sk-of-another', 'other']);
  });

  it('lets a request that waited go on only while its key is valid', async () => {
    const { key, hash } = newKey();
    const { clients, write } = await scene([{ name: 'a', hash }]);
    using _ = clients;
    const client = await clients.identify(headOf(`x-api-key: ${key}`), connection().asker);
    clients.checkAgain(client);
    clients.checkAgain({ ...client, name: 'jwt:a' });
    assert.throws(() => clients.checkAgain({ ...client, name: 'jwt:a', expiresAtMs: 1 }), invalid);
    const isRefused = () => {
      try {
        clients.checkAgain(client);
        return false;
      } catch {
        return true;
      }
    };
    write([{ name: 'a', hash, disabled: true }]);
    await until(isRefused);
    write([{ name: 'b', hash }]);
    await until(() => clients.keys === 1 && isRefused());
  });

  it('ends with a key that expires', async () => {
    const { key, hash } = newKey();
    const { clients } = await scene([{ name: 'a', hash, expires: new Date(Date.now() + 300).toISOString() }]);
    using _ = clients;
    const { asker } = connection();
    const head = headOf(`x-api-key: ${key}`);
    void clients.identify(head, asker);
    await until(() => {
      try {
        void clients.identify(head, asker);
        return false;
      } catch {
        return true;
      }
    });
  });
});
