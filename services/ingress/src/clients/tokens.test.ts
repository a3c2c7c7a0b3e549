import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { GatewayError } from '@llm-gateway/protocol';
import { Metrics } from '@llm-gateway/runtime';
import { ClientTokens } from './tokens.ts';

interface SigningKey {
  readonly privateKey: KeyObject;
  readonly jwk: object;
}

function signingKey(kid: string): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { privateKey, jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg: 'EdDSA', use: 'sig' } };
}

let tokens = 0;

function token(kid: string, { privateKey }: SigningKey, claims: object = {}): string {
  // JSON.stringify writes no number that is too large for it.
  const encoded = (value: object) =>
    Buffer.from(JSON.stringify(value).replace('"1e400"', '1e400')).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 600;
  // Each is another one: a token that was checked is known.
  const payload = { iss: 'https://issuer', sub: 'ada', exp, jti: String(tokens++), ...claims };
  const text = `${encoded({ alg: 'EdDSA', kid })}.${encoded(payload)}`;
  return `${text}.${sign(null, Buffer.from(text), privateKey).toString('base64url')}`;
}

const times = { timeoutMs: 5000, cooldownMs: 50, retryMs: 50 };

/** A server of keys, and the tokens that are checked by what it says. */
async function scene(
  answer: (response: ServerResponse) => void,
  { timeoutMs }: { readonly timeoutMs: number } = times,
) {
  const state = { answer, asked: 0 };
  const server = createServer((_, response) => {
    state.asked++;
    state.answer(response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const settings = {
    clientJwtJwksUrl: `http://127.0.0.1:${port}/keys`,
    ...{ clientJwtJwksFile: '', clientJwtIssuer: 'https://issuer', clientJwtAudience: '', clientJwtClaims: '' },
    clientKeysRefreshIntervalMs: 1000,
  };
  const tokens = await ClientTokens.start(
    settings,
    { log: { info() {}, error() {} }, metrics: new Metrics() },
    { ...times, timeoutMs },
  );
  assert.ok(tokens);
  return Object.assign(state, {
    find: async (shown: string) => await tokens.find(shown),
    async [Symbol.asyncDispose]() {
      tokens[Symbol.dispose]();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

const keys = (...list: SigningKey[]) => {
  const text = JSON.stringify({ keys: list.map(({ jwk }) => jwk) });
  return (response: ServerResponse) => void response.writeHead(200, { 'content-type': 'application/json' }).end(text);
};
const isUnavailable = (error: unknown) => error instanceof GatewayError && error.code === 'overloaded';
const passed = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('tokens by the keys of a URL', () => {
  const first = signingKey('first');
  const second = signingKey('second');

  it('are not valid for ever, nor name a client by what nobody can see', async () => {
    await using issuer = await scene(keys(first));
    assert.equal((await issuer.find(token('first', first, { sub: 'ada lovelace' })))?.name, 'jwt:ada lovelace');
    for (const claims of [
      { exp: '1e400' },
      { sub: 'a\nb' },
      { sub: 'a\u0000' },
      { sub: 'a\u202eb' },
      { sub: 'x'.repeat(129) },
    ]) {
      assert.equal(await issuer.find(token('first', first, claims)), null, JSON.stringify(claims));
    }
  });

  it('are checked by one fetch for all, and known after that', async () => {
    await using issuer = await scene(keys(first));
    const shown = Array.from({ length: 20 }, () => token('first', first));
    for (const client of await Promise.all(shown.map(issuer.find))) assert.equal(client?.name, 'jwt:ada');
    assert.equal(issuer.asked, 1);
    assert.equal(await issuer.find(token('first', second)), null, 'signed by another key');
  });

  it('are let in by a new key soon after it is published, and by the old one no longer than that', async () => {
    await using issuer = await scene(keys(first));
    assert.ok(await issuer.find(token('first', first)));
    issuer.answer = keys(second);
    await passed(times.cooldownMs);
    assert.ok(await issuer.find(token('second', second)));
    assert.equal(await issuer.find(token('first', first)), null);
  });

  it('name keys that nobody has, and the issuer is not asked for each', async () => {
    await using issuer = await scene(keys(first));
    await issuer.find(token('first', first));
    for (let at = 0; at < 20; at++) assert.equal(await issuer.find(token(`unknown-${at}`, second)), null);
    assert.ok(issuer.asked <= 5, `${issuer.asked} fetches`);
  });

  it('cannot be checked while the issuer is away, which is no fault of the client, and can when it is back', async () => {
    await using issuer = await scene((response) => response.destroy());
    const shown = token('first', first);
    for (let at = 0; at < 20; at++) await assert.rejects(issuer.find(shown), isUnavailable);
    assert.ok(issuer.asked <= 5, `${issuer.asked} fetches`);
    issuer.answer = keys(first);
    await passed(times.retryMs);
    assert.ok(await issuer.find(shown));
  });

  for (const [what, answer] of [
    ['an error', (response: ServerResponse) => void response.writeHead(500).end()],
    ['no JSON', (response: ServerResponse) => void response.end('<html>')],
    ['no set of keys', (response: ServerResponse) => void response.end('{"keys":"none"}')],
    ['a redirect', (response: ServerResponse) => void response.writeHead(302, { location: '/keys' }).end()],
  ] as const) {
    it(`cannot be checked by ${what}`, async () => {
      await using issuer = await scene(answer);
      await assert.rejects(issuer.find(token('first', first)), isUnavailable);
    });
  }

  it('cannot be checked by an answer without end, of which no more is read than a set can have', async () => {
    let written = 0;
    const closed = Promise.withResolvers<void>();
    await using issuer = await scene((response) => {
      response.on('close', () => closed.resolve());
      const piece = Buffer.alloc(64 * 1024, ' ');
      const write = () => {
        while (!response.destroyed) {
          written += piece.length;
          if (!response.write(piece)) break;
        }
      };
      response.on('drain', write);
      write();
    });
    await assert.rejects(issuer.find(token('first', first)), isUnavailable);
    await closed.promise;
    assert.ok(written < 32 * 1024 * 1024, `${written} bytes`);
  });

  for (const [what, answer] of [
    ['says nothing', () => {}],
    ['stops in the middle', (response: ServerResponse) => void response.writeHead(200).write('{"keys":[')],
  ] as const) {
    it(`cannot be checked when the issuer ${what}, and nobody waits for long`, async () => {
      await using issuer = await scene(answer, { timeoutMs: 300 });
      await assert.rejects(issuer.find(token('first', first)), isUnavailable);
    });
  }
});
