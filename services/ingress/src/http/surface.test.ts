import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FieldInterest, parseRequestHead } from '@llm-gateway/http1';
import { modelIdOf, placeOf, serviceOf, templateOf } from './surface.ts';

const interest = new FieldInterest({ noted: [], withheld: [] });
const headOf = (target: string, method = 'POST') =>
  parseRequestHead(`${method} ${target} HTTP/1.1\r\nHost: gw`, interest);
const pathOf = (target: string) => placeOf(headOf(target)).path;

describe('a path', () => {
  it('has a template without ids, and none where nothing is served', () => {
    const template = (target: string) => templateOf(placeOf(headOf(target)));
    assert.equal(template('/v1/chat/completions?x=1'), '/v1/chat/completions');
    assert.equal(template('/models/org/name'), '/v1/models/{id}');
    assert.equal(template('/v1/responses/resp_responses'), '/v1/responses/{id}');
    assert.equal(template('/v1/responses/resp_1/input_items'), '/v1/responses/{id}/input_items');
    assert.equal(template('/v1/invented/17'), undefined);
    assert.equal(template('nonsense'), undefined);
  });

  it('is understood behind a base URL with a slash at its end, without /v1, or with it twice', () => {
    const meant = [
      '/v1/chat/completions',
      '/v1/messages/count_tokens',
      '/v1/responses',
      '/v1/audio/speech',
      '/v1/models',
    ];
    for (const path of meant) {
      const bare = path.slice('/v1'.length);
      for (const written of [
        path,
        bare,
        `/${path}`,
        `/v1/${path}`,
        `${path}/`,
        `//v1//${bare}//`,
        `/v1${path}`,
        `//${bare}`,
      ]) {
        assert.equal(pathOf(written), path, written);
      }
    }
    for (const path of ['/rerank', '/v1/rerank', '/v2/rerank', '/tokenize', '/health']) {
      for (const written of [path, `/${path}`, `${path}/`]) assert.equal(pathOf(written), path);
    }
  });

  it('keeps its query, and stays as it is when it is not served', () => {
    const place = placeOf(headOf('//chat/completions/?a=%2F//&b'));
    assert.deepEqual(place, { path: '/v1/chat/completions', query: '?a=%2F//&b', valid: true });
    for (const path of [
      '/',
      '/v1',
      '/v1/',
      '/v3/chat/completions',
      '/v1beta/completions',
      '/v1/files',
      '/chat',
      '/v1/models/',
    ]) {
      assert.equal(pathOf(path), path === '/v1/models/' ? '/v1/models' : path);
    }
  });

  it('may name a model, with its slashes escaped or not', () => {
    const names = {
      '/v1/models/org/m:tag': 'org/m:tag',
      '/v1/models/org%2Fm:tag': 'org/m:tag',
      '//v1//models/a%20b/': 'a b',
      '/models/x': 'x',
      '/v1/v1/models/%C3%A4': 'ä',
    };
    for (const [target, id] of Object.entries(names)) {
      const head = headOf(target, 'GET');
      assert.equal(serviceOf(head, placeOf(head)), 'model');
      assert.equal(modelIdOf(placeOf(head)), id);
    }
    assert.throws(() => modelIdOf(placeOf(headOf('/v1/models/%FF'))), { code: 'not_found' });
    const removal = headOf('/v1/models/x', 'DELETE');
    assert.throws(() => serviceOf(removal, placeOf(removal)), {
      code: 'method_not_allowed',
      details: { allow: 'GET, HEAD' },
    });
  });

  it('of many slashes costs one pass', () => {
    const target = `${'/'.repeat(16_000)}x`;
    assert.equal(pathOf(target), target);
    assert.equal(pathOf(`/v1/models/${'/'.repeat(16_000)}`), '/v1/models');
  });
});
