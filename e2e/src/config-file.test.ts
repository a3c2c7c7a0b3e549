import assert from 'node:assert/strict';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type Engine, startEngine, startService, temporaryFolder, until } from '@llm-gateway/testing';
import { chat, post } from './gateway.ts';

const routes = (engine: Engine, key: string) =>
  `route-policy: weight\nroute-config:\n  - base_url: ${engine.url}\n    weight: 1\n    api_key: ${key}\n`;

describe('the file of --config', () => {
  it('starts a service, is followed for what may change, and says where values came from', async () => {
    const path = join(temporaryFolder(), 'llm-gateway.yaml');
    const put = (text: string) => {
      writeFileSync(`${path}.new`, text);
      renameSync(`${path}.new`, path);
    };
    await using one = await startEngine();
    await using other = await startEngine();
    put(`${routes(one, 'sk-canary-1')}log-level: info\nstandalone:\n  max-body-bytes: 5000\n`);
    await using gateway = await startService('standalone', ['--config', path, '--config-refresh-interval-ms', '50']);
    const starting = gateway.logs().find(({ msg }) => msg === 'starting');
    assert.deepEqual(
      Object.entries(starting?.from ?? {}).filter(
        // The others are given by the start of a test.
        ([flag, from]) => from !== `--${flag}` || flag.startsWith('config'),
      ),
      [
        ['max-body-bytes', `${path}: standalone.max-body-bytes`],
        ['route-policy', `${path}: route-policy`],
        ['route-config', `${path}: route-config`],
        ['config', '--config'],
        ['log-level', `${path}: log-level`],
        ['config-refresh-interval-ms', '--config-refresh-interval-ms'],
      ],
    );
    assert.equal((await post(gateway.url, chat())).status, 200);
    assert.equal(one.requests.length, 1);

    put(`${routes(other, 'sk-canary-2')}log-level: debug\nstandalone:\n  max-body-bytes: 5000\n`);
    await until(async () => {
      assert.equal((await post(gateway.url, chat())).status, 200);
      return other.requests.length > 0;
    });
    assert.equal(other.requests[0]?.headers.authorization, 'Bearer sk-canary-2');

    const valid = async () => (await gateway.metrics()).value('llm_gateway_config_valid', { file: 'config_file' });
    for (const bad of ['', 'log-level: loud', `${routes(one, 'k')}standalone:\n  max-body-bytes: 6000\n`]) {
      put(bad);
      await until(async () => (await valid()) === 0);
      put(`${routes(other, 'sk-canary-2')}log-level: debug\nstandalone:\n  max-body-bytes: 5000\n`);
      await until(async () => (await valid()) === 1);
    }
    const mistakes = () => gateway.logs().flatMap(({ mistake }) => (mistake === undefined ? [] : [String(mistake)]));
    // Lines are written together.
    await until(() => mistakes().some((one) => /--max-body-bytes: cannot change while the process runs/.test(one)));
    assert.ok(!gateway.output().includes('sk-canary'), 'no key is logged');
  });

  it('takes a change as soon as a file that one of its flags names is mended', async () => {
    const folder = temporaryFolder();
    const [path, routesPath, keyPath] = ['g.yaml', 'routes.json', 'key'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const rows = JSON.stringify([{ base_url: 'http://127.0.0.1:1', weight: 1, api_key_file: keyPath }]);
    const put = (level: string) =>
      writeFileSync(path, `route-policy: weight\nroute-config: "@${routesPath}"\nlog-level: ${level}\n`);
    const mend = () => {
      writeFileSync(routesPath, rows);
      writeFileSync(keyPath, 'sk-canary-3');
    };
    mend();
    put('info');
    await using gateway = await startService('standalone', ['--config', path, '--config-refresh-interval-ms', '50']);
    const metric = async (name: string) =>
      (await gateway.metrics()).value(`llm_gateway_config_${name}`, { file: 'config_file' });
    let generation = 1;
    for (const spoil of [() => writeFileSync(routesPath, '['), () => rmSync(keyPath)]) {
      spoil();
      put(generation === 1 ? 'debug' : 'info');
      await until(async () => (await metric('valid')) === 0);
      mend();
      generation++;
      await until(async () => (await metric('generation')) === generation);
      assert.equal(await metric('valid'), 1);
    }
    // Three services of the process follow the route config.
    const errors = (await gateway.metrics()).value('llm_gateway_route_config_errors_total') ?? 0;
    assert.ok(errors <= 2, `${errors}`);
    const told = gateway
      .logs()
      .filter(({ msg }) => msg === 'route config file cannot be used; keeping the one in effect');
    assert.ok(told.length <= 2, `${told.length}`);
  });
});
