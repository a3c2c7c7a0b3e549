import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import { ModelGroups } from './model-groups.ts';

const instance = (id: string, models: readonly string[] | undefined): Instance => ({
  ...{ id, roles: ['neutral'], model: '', host: id, port: 1, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1 },
  ...(models && { models: [...models] }),
});

describe('groups of models', () => {
  it('are those that the same instances serve, under the first of their names', () => {
    const groups = new ModelGroups([
      instance('a', ['base', 'adapter-2', 'adapter-1']),
      instance('b', ['adapter-1', 'adapter-2', 'base', 'only-b']),
      instance('c', undefined),
    ]);
    const names = ['base', 'adapter-1', 'adapter-2', 'only-b', '', 'unknown', null] as const;
    assert.deepEqual(
      names.map((name) => groups.of(name)),
      ['adapter-1', 'adapter-1', 'adapter-1', 'only-b', '', 'unknown', null],
    );
  });

  it('are called the same in whichever order instances and names come', () => {
    const instances = [instance('a', ['x', 'y']), instance('b', ['y', 'x']), instance('c', ['z', 'x'])];
    const [one, other] = [new ModelGroups(instances), new ModelGroups(instances.toReversed())];
    for (const name of ['x', 'y', 'z']) assert.equal(one.of(name), other.of(name));
    assert.notEqual(one.of('x'), one.of('y'));
  });
});
