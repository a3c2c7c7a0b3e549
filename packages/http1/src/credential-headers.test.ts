import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  credentialHeaders,
  isCredentialHeader,
  isCredentialParameter,
  withoutCredentials,
  withoutSecrets,
} from './credential-headers.ts';
import { HeaderLines } from './header-lines.ts';
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
    for (const name of [
      'x-acme-api-key',
      'x-passphrase',
      'x-pat',
      'x-jwt-payload',
      'x-endpoint-api-userinfo',
      'sid',
      'x-apikey',
      'private-token',
      'x-app-secret',
      'x-user-jwt',
      'x-password',
    ]) {
      assert.ok(isCredentialHeader(name), name);
    }
    for (const name of passing) assert.ok(!isCredentialHeader(name), name);
  });

  it('is any key but those that name a request, a place in a cache or a share of the load', () => {
    const secret = [
      'key',
      'x-key',
      'x-functions-key',
      'x-rapidapi-key',
      'subscription-key',
      'x-acme-key',
      'x_acme_key',
    ];
    for (const name of [...secret, 'x-appkey', 'x-idempotency-key-key']) assert.ok(isCredentialHeader(name), name);
    const plain = ['idempotency-key', 'x-idempotency-key', 'x-cache-key', 'x-routing-key', 'x-monkey', 'x-key-count'];
    for (const name of plain) assert.ok(!isCredentialHeader(name), name);
  });

  it('is a proof, a signature, or what a sign-on proxy says of the user', () => {
    const proofs = [
      'dpop',
      'x-authentication',
      'x-bearer',
      'x-ms-authorization-auxiliary',
      'sec-token-binding',
      'signature',
      'signature-input',
      'x-hub-signature-256',
      'stripe-signature',
    ];
    const users = [
      'x-authentik-email',
      'tailscale-user-login',
      'x-auth-request-access-token',
      'x-auth-user',
      'remote-user',
      'remote_user',
      'remote-groups',
      'oidc_claim_sub',
      'x-consumer-username',
    ];
    for (const name of [...proofs, ...users]) assert.ok(isCredentialHeader(name), name);
  });

  it('may be a parameter of a query, which is no token of a page', () => {
    const secret = [
      'key',
      'api-key',
      'api_key',
      'apiKey',
      'access_token',
      'token',
      'sig',
      'X-Amz-Signature',
      'KEY',
      'sas',
      'code',
      'key[]',
    ];
    for (const name of secret) assert.ok(isCredentialParameter(name), name);
    const plain = ['api-version', 'limit', 'after', 'page_token', 'pageToken', 'idempotency_key', 'max_tokens', ''];
    for (const name of plain) assert.ok(!isCredentialParameter(name), name);
    for (const name of ['sas', 'code']) assert.ok(!isCredentialParameter(name, { thirdParty: false }), name);
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
    'Fly-Client-IP',
    'DO-Connecting-IP',
    'Fastly-Client-IP',
    'True-Client-IP',
    'X-Cluster-Client-IP',
    'X-Client-IP',
    'X-Original-Forwarded-For',
    'X-Original-URL',
    'X_Forwarded_For',
    'X-Originating-IP',
    'Remote-Addr',
    'CloudFront-Viewer-Address',
    'Origin',
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
      'Location',
      'content-location',
      'Link',
      'operation-location',
      'refresh',
    ];
    const kept = ['content-type', 'retry-after', 'x-ratelimit-remaining-requests', 'openai-processing-ms', 'date'];
    assert.deepEqual(fromThirdParty(pairs([...kept, ...theirs, 'access-control-allow-origin'])), pairs(kept));
  });
});

describe('header lines without secrets', () => {
  const lines = (...fields: string[]) => HeaderLines.ofLines(fields.map((field) => `${field}\r\n`).join(''));

  it('are the same object where there is none', () => {
    const headers = lines('accept: */*', 'x-request-id: 1');
    assert.equal(withoutSecrets(headers, 'sk-gw-1'), headers);
  });

  it('have no credential of any spelling, and no value in which the secret stands', () => {
    const headers = lines(
      'Accept: */*',
      'AUTHORIZATION: Bearer other',
      'x-note: my key is sk-gw-1, really',
      'X-Acme-Key: 1',
      'x_acme_key: 2',
      'Accept: text/plain',
      'cookie: a=b',
    );
    for (let again = 0; again < 2; again++) {
      assert.deepEqual(withoutSecrets(headers, 'sk-gw-1').list, ['Accept', '*/*', 'Accept', 'text/plain']);
    }
    assert.equal(withoutSecrets(lines('cookie: a'), 'sk-gw-1').lines, '');
  });

  it('say of each name what a look at it alone says, whoever asked before', () => {
    const name = fc.oneof(fc.constantFrom(...credentialHeaders, ...passing), fc.stringMatching(/^[A-Za-z_-]{1,80}$/));
    fc.assert(
      fc.property(fc.array(name, { maxLength: 20 }), (names) => {
        const kept = withoutSecrets(lines(...names.map((one) => `${one}: 1`)), 'sk-gw-1').list;
        assert.deepEqual(
          kept.filter((_, at) => at % 2 === 0),
          names.filter((one) => !isCredentialHeader(one.toLowerCase())),
        );
      }),
      { numRuns: 200 },
    );
    // More names than are remembered.
    for (let at = 0; at < 3000; at++) {
      assert.equal(withoutSecrets(lines(`x-${at}-key: 1`, `x-${at}: 1`), 'sk-gw-1').lines, `x-${at}: 1\r\n`);
    }
  });
});
