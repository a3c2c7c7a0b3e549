import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { nodePath, type Service, startProcess, until } from '@llm-gateway/testing';
import { chat } from './gateway.ts';
import { MirrorScene, repeat, send } from './mirror.ts';

const bin = join(import.meta.dirname, '../../cli/bin/llm-gateway.js');

describe('a pause of the mirror', () => {
  it('holds at ingresses that start later, outlives senders and replicas of discovery, and ends by order or time', async () => {
    await using scene = await MirrorScene.start();
    const { gateway } = scene;
    writeFileSync(scene.configPath, JSON.stringify({ Enable: true, Target: scene.target.url, Ratio: 100 }));
    await until(async () => (await scene.metric('mirror_enabled')) === 1);
    const copied = async () => {
      const books = await scene.settled();
      await repeat(5, 5, () => send(scene.url, chat()));
      return (await scene.settled(books)).sent;
    };
    assert.equal(await copied(), 5);

    const order = async (...words: string[]) => {
      await using child = await startProcess(nodePath, [bin, 'mirror', ...words, '--nats-servers', gateway.nats.url]);
      const { code } = await child.exited;
      assert.equal(code, 0, child.output());
    };
    const paused = async (service: Service | undefined) =>
      (await service?.metrics())?.value('llm_gateway_mirror_paused');
    await order('pause', '--for', '10m', '--reason', 'the target is slow');
    await until(async () => (await paused(scene.ingress)) === 1);
    assert.equal(await copied(), 0);

    const second = await gateway.start('discovery');
    await until(async () => (await second.metrics()).value('llm_gateway_bus_connected') === 1);
    await gateway.discovery[0]?.stop();
    await scene.senders[0]?.stop();
    await gateway.start('mirror-sender');
    const later = await gateway.start('ingress', { flags: ['--mirror-config', scene.configPath] });
    await until(async () => (await paused(later)) === 1, { what: 'the second replica tells it to a new ingress' });
    assert.equal(await paused(scene.ingress), 1);

    await order('resume');
    await until(async () => (await paused(scene.ingress)) === 0 && (await paused(later)) === 0);
    assert.equal(await copied(), 5);

    await order('pause', '--for', '2s');
    await until(async () => (await paused(scene.ingress)) === 1);
    await until(async () => (await paused(scene.ingress)) === 0, { what: 'it ends by itself' });
  });
});
