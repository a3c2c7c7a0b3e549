import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { countsAsFailed, endpointHeaders, hasOwnCredential, secretsOf } from './endpoint-call.ts';
import type { Endpoint } from './route-table.ts';

const endpoint = (given: Partial<Endpoint> = {}): Endpoint => ({
  index: 0,
  baseUrl: 'https://api.example',
  apiKey: '',
  model: '',
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
