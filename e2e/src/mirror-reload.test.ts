import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { until } from '@llm-gateway/testing';
import { chat } from './gateway.ts';
import { MirrorScene, refreshIntervalMs, repeat, send } from './mirror.ts';

/**
 * Reading the file and asking for the metrics come on top of the interval; so does a busy machine.
 */
const effectiveWithinMs = refreshIntervalMs + 2000;

describe('the mirror config file', { timeout: 120_000 }, () => {
  let scene: MirrorScene;
  before(async () => {
    scene = await MirrorScene.start();
  });
  after(() => scene[Symbol.asyncDispose]());

  /**
   * Puts a text in the file's place at once: one that is written there is an empty one for a
   * moment, which would count as a mistake.
   */
  const put = (text: string) => {
    writeFileSync(`${scene.configPath}.new`, text);
    renameSync(`${scene.configPath}.new`, scene.configPath);
  };
  const config = (enable: boolean, change: object = {}) =>
    JSON.stringify({ Enable: enable, Target: scene.target.url, Ratio: 100, ...change });
  const enabled = async (expected: boolean) =>
    await until(async () => (await scene.metric('mirror_enabled')) === Number(expected), {
      timeoutMs: effectiveWithinMs,
      what: `mirroring is ${expected ? 'on' : 'off'} one refresh interval later`,
    });
  const errors = async (expected: number) =>
    await until(async () => (await scene.metric('mirror_config_errors_total')) === expected, {
      timeoutMs: effectiveWithinMs,
      what: `${expected} errors are counted`,
    });
  /** How many of ten requests are mirrored. */
  const mirrored = async () => {
    const books = await scene.settled();
    const received = scene.target.requests.length;
    await repeat(10, 5, () => send(scene.url, chat()));
    const { sampled, sent } = await scene.settled(books);
    assert.equal(sent, sampled);
    assert.equal(scene.target.requests.length - received, sampled);
    return sampled;
  };

  it('may be missing: mirroring is off until it appears', async () => {
    assert.equal(await mirrored(), 0);
    assert.equal(await scene.metric('mirror_config_generation'), 0);
    assert.equal(await scene.metric('mirror_config_errors_total'), 0);
    assert.equal(await scene.metric('mirror_config_last_error_timestamp_seconds'), 0);
    put(config(true));
    await enabled(true);
    assert.equal(await mirrored(), 10);
    assert.ok((await scene.metric('mirror_config_last_reload_timestamp_seconds')) > Date.now() / 1000 - 60);
  });

  it('turns mirroring off and on again without a restart', async () => {
    const { pid } = scene.ingress;
    for (const on of [false, true, false, true]) {
      put(config(on));
      await enabled(on);
      assert.equal(await mirrored(), on ? 10 : 0);
    }
    assert.equal(scene.ingress.pid, pid);
    assert.equal(scene.ingress.ended, false);
  });

  it('is replaced whole: what a new one leaves out is off', async () => {
    put(JSON.stringify({ enable: true, target: scene.target.url, ratio: 100 }));
    await enabled(true);
    assert.equal(await mirrored(), 10);
    put(JSON.stringify({ enable: true, target: scene.target.url }));
    await enabled(false);
    assert.equal(await mirrored(), 0);
  });

  it('keeps the last good config while it is malformed, empty or gone, tells once, and counts', async () => {
    put(config(true));
    await enabled(true);
    const generation = await scene.metric('mirror_config_generation');
    let count = await scene.metric('mirror_config_errors_total');
    const secret = 'Bearer s3cret';
    const spoilings: (() => void)[] = [
      () => put(`{"Enable": false, "Authorization": "${secret}" oops`),
      () => put(''),
      () => rmSync(scene.configPath),
      () => put('{"Enable":true,"Target":"nowhere","Ratio":100}'),
    ];
    for (const spoil of spoilings) {
      spoil();
      count += 1;
      await errors(count);
      assert.equal(await scene.metric('mirror_config_valid'), 0);
      assert.equal(await mirrored(), 10);
    }
    assert.equal(await scene.metric('mirror_config_generation'), generation);
    assert.ok((await scene.metric('mirror_config_last_error_timestamp_seconds')) > Date.now() / 1000 - 60);
    const told = scene.ingress.logs().filter(({ level, mistake }) => level === 'error' && mistake !== undefined);
    assert.equal(told.length, 4);
    assert.doesNotMatch(scene.ingress.output(), /s3cret/);

    put(config(true));
    await until(async () => (await scene.metric('mirror_config_valid')) === 1);
    put(config(false));
    await enabled(false);
    assert.equal(await scene.metric('mirror_config_errors_total'), count);
  });

  it('may be swapped by a symlink, as in the mounts of Kubernetes', async () => {
    const mount = dirname(scene.configPath);
    const publish = (name: string, text: string | undefined) => {
      mkdirSync(join(mount, name));
      if (text !== undefined) writeFileSync(join(mount, name, 'mirror.json'), text);
      symlinkSync(name, join(mount, '..data_tmp'));
      renameSync(join(mount, '..data_tmp'), join(mount, '..data'));
    };
    rmSync(scene.configPath);
    publish('..v1', config(true));
    symlinkSync(join('..data', 'mirror.json'), scene.configPath);
    await enabled(true);
    assert.equal(await mirrored(), 10);
    publish('..v2', config(false));
    await enabled(false);
    assert.equal(await mirrored(), 0);
    publish('..v3', config(true));
    await enabled(true);
    assert.equal(await mirrored(), 10);

    const count = await scene.metric('mirror_config_errors_total');
    publish('..v4', '{"Enable":');
    await errors(count + 1);
    publish('..v5', undefined);
    await errors(count + 2);
    assert.equal(await mirrored(), 10);
    publish('..v6', config(false));
    await enabled(false);
    assert.equal(readFileSync(scene.configPath, 'utf8'), config(false));
  });
});
