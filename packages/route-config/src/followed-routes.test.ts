import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { RouteTable } from '@llm-gateway/routing';
import { Metrics } from '@llm-gateway/runtime';
import { temporaryFolder, until } from '@llm-gateway/testing';
import { followRoutes } from './followed-routes.ts';

describe('the route config, followed', () => {
  it('changes with its file and with the files of its keys, which are hidden before anybody uses them', async () => {
    const folder = temporaryFolder();
    const [path, keyPath] = [join(folder, 'routes.json'), join(folder, 'key')];
    const put = (weight: number) =>
      writeFileSync(path, JSON.stringify([{ base_url: 'http://a', weight, api_key_file: keyPath }]));
    put(1);
    writeFileSync(keyPath, 'key-1\n');
    const events: unknown[] = [];
    const apiKey = ({ endpoints }: RouteTable) => endpoints[0]?.apiKey;
    using followed = followRoutes(
      { routePolicy: 'weight', routeConfig: `@${path}`, configRefreshIntervalMs: 10 },
      {
        metrics: new Metrics(),
        log: {
          info: (fields) => void events.push('changes' in fields && fields.changes),
          warn: () => undefined,
          error: (fields) => void events.push('mistake' in fields && fields.mistake),
        },
        hide: (name, value) => void events.push(`hidden ${name} ${value}`),
        onChange: (table) => void events.push(`used ${apiKey(table)} ${table.endpoints[0]?.weight}`),
      },
    );
    assert.equal(apiKey(followed.first), 'key-1');
    const settle = async (count: number) => {
      await until(() => events.length >= count);
      return events.splice(0);
    };
    assert.deepEqual(await settle(1), ['hidden route-config[0] key-1']);
    writeFileSync(keyPath, 'key-2');
    assert.deepEqual(await settle(3), [
      ['row 0 http://a: key changed'],
      'hidden route-config[0] key-2',
      'used key-2 1',
    ]);
    put(5);
    assert.deepEqual(await settle(3), [
      ['row 0 http://a: weight 1 -> 5'],
      'hidden route-config[0] key-2',
      'used key-2 5',
    ]);
    writeFileSync(keyPath, 'two words');
    const [mistake] = await settle(1);
    assert.match(String(mistake), /route-config\[0\]\.api_key_file/);
    assert.ok(!String(mistake).includes('two words'));
  });

  it('may begin with a byte order mark, as may the file of a key', async () => {
    const folder = temporaryFolder();
    const [path, keyPath] = [join(folder, 'routes.json'), join(folder, 'key')];
    const put = (weight: number) =>
      writeFileSync(path, `\ufeff${JSON.stringify([{ base_url: 'http://a', weight, api_key_file: keyPath }])}`);
    put(1);
    writeFileSync(keyPath, '\ufeffkey-1\n');
    const tables: RouteTable[] = [];
    const mistakes: object[] = [];
    const metrics = new Metrics();
    using followed = followRoutes(
      { routePolicy: 'weight', routeConfig: `@${path}`, configRefreshIntervalMs: 10 },
      {
        metrics,
        log: { info() {}, warn() {}, error: (fields) => void mistakes.push(fields) },
        onChange: (table) => void tables.push(table),
      },
    );
    assert.equal(followed.first.endpoints[0]?.apiKey, 'key-1');
    put(2);
    await until(() => tables.length > 0);
    assert.deepEqual(
      tables.map(({ endpoints: [row] }) => [row?.weight, row?.apiKey]),
      [[2, 'key-1']],
    );
    assert.deepEqual(mistakes, []);
  });

  it('refuses a file that cannot be read at the start', () => {
    const settings = { routePolicy: 'weight', routeConfig: '@/nowhere', configRefreshIntervalMs: 10 };
    const log = { info() {}, warn() {}, error() {} };
    assert.throws(() => followRoutes(settings, { metrics: new Metrics(), log, onChange() {} }), /cannot be read/);
  });
});
