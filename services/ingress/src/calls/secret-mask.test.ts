import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import type { Endpoint } from '@llm-gateway/routing';
import { SecretMask } from './secret-mask.ts';

const secret = 'sk-of-the-route';
const endpoint: Endpoint = {
  index: 0,
  baseUrl: 'https://api.example',
  apiKey: secret,
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
};
const stream = HeaderLines.of(['content-type', 'text/event-stream']);
const json = HeaderLines.of(['content-type', 'application/json', 'www-authenticate', `Bearer key="${secret}"`]);

function passed(status: number, headers: HeaderLines, chunks: readonly string[]): string {
  const mask = SecretMask.of(endpoint);
  assert.ok(mask);
  mask.begin({ status, headers });
  const pieces = [...chunks.map((chunk) => mask.take(Buffer.from(chunk))), mask.rest()];
  return Buffer.concat(pieces.flatMap((piece) => piece ?? [])).toString();
}

describe('the secret of a route', () => {
  it('is masked in an event stream, wherever its pieces are cut', () => {
    const text = `data: {"a":1}\n\ndata: {"error":{"message":"sk-of ${secret}${secret}"}}\n\ndata: sk-of-`;
    const masked = text.replaceAll(secret, '***');
    for (let at = 0; at <= text.length; at++) {
      assert.equal(passed(200, stream, [text.slice(0, at), text.slice(at)]), masked, `cut at ${at}`);
    }
    assert.equal(passed(200, stream, [...text]), masked, 'in single characters');
  });

  it('is masked in an error that is relayed, its headers too; other answers pass as they are', () => {
    const body = `{"error":"no ${secret}"}`;
    assert.equal(passed(400, json, [body.slice(0, 15), body.slice(15)]), '{"error":"no ***"}');
    assert.equal(passed(200, json, [body]), body);
    const mask = SecretMask.of(endpoint);
    assert.equal(mask?.headers(401, json)[3], 'Bearer key="***"');
    assert.equal(mask?.headers(200, json)[3], `Bearer key="${secret}"`);
  });

  it('is looked for only where there is one', () =>
    assert.equal(SecretMask.of({ ...endpoint, apiKey: '' }), undefined));
});
