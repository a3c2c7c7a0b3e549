import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { credentialHeaders, isCredentialHeader, withoutCredentials } from './credential-headers.ts';
import { fromThirdParty, toThirdParty } from './third-party-headers.ts';

const passing = [
  'accept',
  'accept-encoding',
  'anthropic-beta',
  'anthropic-version',
  'content-encoding',
  'content-type',
  'idempotency-key',
  'openai-beta',
  'traceparent',
  'user-agent',
  'x-request-id',
  'x-stainless-lang',
];
const pairs = (names: readonly string[]) => names.flatMap((name, index) => [name, `${index}`]);

describe('a credential of a client', () => {
  it('is a header of the list, or one that is named like a secret', () => {
    for (const name of credentialHeaders) assert.ok(isCredentialHeader(name), name);
    for (const name of ['x-acme-api-key', 'x-apikey', 'private-token', 'x-app-secret', 'x-user-jwt', 'x-password']) {
      assert.ok(isCredentialHeader(name), name);
    }
    for (const name of passing) assert.ok(!isCredentialHeader(name), name);
  });

  it('is left out in any spelling; all else stays as it is', () => {
    const headers = ['Accept', 'a', 'X-API-Key', 's', 'COOKIE', 's', 'X-B', '1', 'x-b', '2', 'cookie', 't'];
    assert.deepEqual(withoutCredentials(headers), ['Accept', 'a', 'X-B', '1', 'x-b', '2']);
  });
});

describe('what a third party gets of a request', () => {
  const way = [
    'Via',
    'CF-Connecting-IP',
    'cf-access-jwt-assertion',
    'cdn-loop',
    'Forwarded',
    'X-Forwarded-For',
    'x-real-ip',
  ];
  const all = [...passing, ...way, 'Authorization', 'x-api-key', 'cookie'];

  it('are no credentials and nothing that proxies wrote', () => {
    assert.deepEqual(toThirdParty(pairs(all), { forwardAuth: false }), pairs(passing));
  });

  it('are the credentials as well when its route says so, and still nothing that proxies wrote', () => {
    const names = toThirdParty(pairs(all), { forwardAuth: true }).filter((_, index) => index % 2 === 0);
    assert.deepEqual(names, [...passing, 'Authorization', 'x-api-key', 'cookie']);
  });
});

describe('what a client gets of the answer of a third party', () => {
  it('is nothing that the client would take for words about our host', () => {
    const theirs = [
      'Set-Cookie',
      'Strict-Transport-Security',
      'alt-svc',
      'NEL',
      'report-to',
      'OpenAI-Organization',
      'cf-ray',
    ];
    const kept = ['content-type', 'retry-after', 'x-ratelimit-remaining-requests', 'openai-processing-ms', 'date'];
    assert.deepEqual(fromThirdParty(pairs([...kept, ...theirs, 'access-control-allow-origin'])), pairs(kept));
  });
});
