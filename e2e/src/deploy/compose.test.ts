import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { root } from './kustomize.ts';

/** A file's text with each run of blanks, and so each wrapped line, as one blank. */
const read = (path: string) => readFileSync(join(root, path), 'utf8').replaceAll(/\s+/g, ' ');

describe('docker-compose.yml', () => {
  it('and its page promise as many ingresses as the balancer takes', () => {
    const [, slots = ''] = /server-template ingress (\d+) /.exec(read('deploy/compose/haproxy.cfg')) ?? [];
    assert.notEqual(slots, '');
    for (const path of ['docker-compose.yml', 'deploy/compose/README.md']) {
      const promised = [...read(path).matchAll(/(\S+) ingresses/g)].map(([, count]) => count);
      assert.ok(promised.length >= 2, path);
      assert.deepEqual(new Set(promised), new Set([slots]), path);
    }
  });
});
