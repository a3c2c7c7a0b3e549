import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Endpoint } from './endpoint.ts';
import {
  countsAsFailed,
  endpointHeaders,
  endpointUrl,
  hasOwnCredential,
  secretsOf,
  withoutSecrets,
} from './endpoint-call.ts';

const endpoint = (given: Partial<Endpoint> = {}): Endpoint => ({
  index: 0,
  baseUrl: 'https://api.example',
  apiKey: '',
  model: '',
  upstreamModel: '',
  aliases: [],
  fallback: false,
  weight: 1,
  prefix: '',
  forwardAuth: false,
  authHeader: 'authorization',
  headers: [],
  addV1: null,
  timeoutMs: 0,
  local: false,
  ...given,
});

describe('the URL of an endpoint call', () => {
  it("holds a key of the client's query only where the route forwards credentials and has none of its own", () => {
    const target = '/v1/models?key=s&limit=2';
    const without = 'https://api.example/v1/models?limit=2';
    assert.equal(endpointUrl(target, endpoint()), without);
    assert.equal(endpointUrl(target, endpoint({ apiKey: 'k', forwardAuth: true })), without);
    assert.equal(endpointUrl(target, endpoint({ forwardAuth: true })), `https://api.example${target}`);
    const own = endpoint({ baseUrl: 'https://api.example/v1?key=ours' });
    assert.equal(endpointUrl(target, own), 'https://api.example/v1/models?key=ours&limit=2');
  });
});

describe('the headers of an endpoint call', () => {
  const client = ['Accept', 'a', 'AUTHORIZATION', 'Bearer client', 'authorization', 'Bearer twice', 'X-B', 'b'];

  it("hold the endpoint's key in place of the client's", () => {
    assert.deepEqual(endpointHeaders(client, endpoint({ apiKey: 'k', forwardAuth: true })), [
      'Accept',
      'a',
      'X-B',
      'b',
      'authorization',
      'Bearer k',
    ]);
  });

  it('hold no credential of the client beside our key, and nothing that proxies wrote', () => {
    const more = [...client, 'x-api-key', 's', 'Cookie', 's', 'X-Forwarded-For', '10.0.0.1', 'cf-ray', 'r'];
    const ours = ['Accept', 'a', 'X-B', 'b'];
    assert.deepEqual(endpointHeaders(more, endpoint()), ours);
    assert.deepEqual(endpointHeaders(more, endpoint({ apiKey: 'k' })), [...ours, 'authorization', 'Bearer k']);
  });

  it('hold the key where the route says, and its own headers in place of the client', () => {
    const azure = endpoint({ apiKey: 'k', authHeader: 'api-key', headers: ['accept', 'ours', 'x-static', 'a b'] });
    assert.deepEqual(endpointHeaders(client, azure), ['X-B', 'b', 'accept', 'ours', 'x-static', 'a b', 'api-key', 'k']);
    assert.ok(hasOwnCredential(azure));
    assert.ok(hasOwnCredential(endpoint({ headers: ['x-api-key', 'k'] })));
    assert.ok(!hasOwnCredential(endpoint({ headers: ['x-static', 'k'] })));
    assert.deepEqual(secretsOf(endpoint({ apiKey: 'k', headers: ['x-static', 'a', 'x-api-key', 's'] })), [
      ['', 'k'],
      ['.headers.x-api-key', 's'],
    ]);
  });

  it("hold no Authorization without a key, unless the route forwards the client's", () => {
    assert.deepEqual(endpointHeaders(client, endpoint()), ['Accept', 'a', 'X-B', 'b']);
    assert.deepEqual(endpointHeaders(client, endpoint({ forwardAuth: true })), client);
  });
});

describe('what counts as failed', () => {
  it("is the upstream's fault or ours, never the client's", () => {
    for (const status of [301, 302, 307, 308, 408, 429, 500, 502, 503, 504, 599])
      assert.ok(countsAsFailed(status, false));
    for (const status of [200, 204, 304, 400, 401, 403, 404, 409, 413, 415, 422, 499])
      assert.ok(!countsAsFailed(status, false));
    for (const status of [401, 403, 404]) assert.ok(countsAsFailed(status, true));
    for (const status of [200, 400, 409, 413, 422]) assert.ok(!countsAsFailed(status, true));
  });
});

describe("an endpoint's failed answer", () => {
  const key = 'sk-of-the-route';
  const refusal = { status: 401, headers: ['x-key', key], body: Buffer.from(`no ${key}, ${key} \u00e9`) };

  it('quotes no key of its route, wherever the route has it', () => {
    for (const keyed of [
      endpoint({ apiKey: key }),
      endpoint({ headers: ['authorization', `Bearer ${key}`] }),
      endpoint({ baseUrl: `https://api.example?key=${key}` }),
    ]) {
      const { status, headers, body } = withoutSecrets(refusal, keyed);
      assert.deepEqual([status, headers, body.toString()], [401, ['x-key', '***'], 'no ***, *** \u00e9']);
    }
  });

  it('is what it was without a key that could be told from words', () => {
    assert.deepEqual(withoutSecrets(refusal, endpoint()), refusal);
    assert.deepEqual(withoutSecrets(refusal, endpoint({ apiKey: 'k' })), refusal);
    assert.deepEqual(withoutSecrets(refusal, endpoint({ apiKey: 'another-key' })), refusal);
  });

  it('has no encoded body when it may be about the key', () => {
    const encoded = { headers: ['Content-Encoding', 'gzip', 'content-type', 'a/b', 'x', 'y'], body: Buffer.from('z') };
    const keyed = endpoint({ apiKey: key });
    const { headers, body } = withoutSecrets({ status: 403, ...encoded }, keyed);
    assert.deepEqual([headers, body.length], [['x', 'y'], 0]);
    assert.deepEqual(withoutSecrets({ status: 500, ...encoded }, keyed), { status: 500, ...encoded });
  });
});
