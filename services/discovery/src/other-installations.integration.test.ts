import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, inProcessBus } from '@llm-gateway/bus';
import { instancesChanged } from '@llm-gateway/protocol';
import { Metrics, parseOptions } from '@llm-gateway/runtime';
import { parseMetrics, startNats, startService, until } from '@llm-gateway/testing';
import { options } from './options.ts';
import { OtherInstallations, sourceOf } from './other-installations.ts';

/** A replica that beats each second for `seconds`, on a clock of the test's. */
class Scene {
  readonly bus: Bus = inProcessBus();
  readonly lines: string[] = [];
  readonly #metrics = new Metrics();
  readonly #installations: OtherInstallations;
  nowMs = 0;

  constructor() {
    const log = { info: () => void this.lines.push('info'), warn: () => void this.lines.push('warn') };
    this.#installations = new OtherInstallations('own', {
      bus: this.bus,
      log,
      metrics: this.#metrics,
      now: () => this.nowMs,
    });
  }

  async beats(seconds: number, ...sources: (string | undefined)[]): Promise<void> {
    for (let at = 0; at < seconds; at++) {
      this.nowMs += 1000;
      for (const source of sources) {
        const beat = { replica: `of-${source}`, revision: 1, previous: 1, storeUp: true, upserts: [], removals: [] };
        this.bus.publish(instancesChanged, source === undefined ? beat : { ...beat, source });
      }
      await Promise.resolve();
    }
  }

  async sources(): Promise<number> {
    return parseMetrics((await this.#metrics.exposition()).text).value('llm_gateway_discovery_sources');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#installations[Symbol.dispose]();
    await this.bus[Symbol.asyncDispose]();
  }
}

describe('two installations on one bus', () => {
  it('are warned of once, when they have run side by side for longer than a rollout', async () => {
    await using scene = new Scene();
    await scene.beats(1, 'own', 'other');
    assert.deepEqual(scene.lines, ['info']);
    assert.equal(await scene.sources(), 2);
    await scene.beats(179, 'own', 'other');
    assert.deepEqual(scene.lines, ['info']);
    await scene.beats(600, 'own', 'other', 'third');
    assert.deepEqual(scene.lines, ['info', 'warn']);
  });

  it('are not seen in one installation, in replicas that do not say what they read, or in rollouts', async () => {
    await using scene = new Scene();
    await scene.beats(600, 'own', undefined);
    assert.deepEqual(scene.lines, []);
    assert.equal(await scene.sources(), 1);
    for (const next of ['second', 'third', 'second']) {
      await scene.beats(120, 'own', next);
      await scene.beats(60, 'own');
      assert.equal(await scene.sources(), 1);
    }
    assert.deepEqual(scene.lines, ['info']);
  });

  it('do not fill the memory, whatever is said on the bus', async () => {
    await using scene = new Scene();
    await scene.beats(1, ...Array.from({ length: 1_000 }, (_, at) => `source-${at}`));
    assert.equal(await scene.sources(), 21);
    await scene.beats(20, 'own');
    await scene.beats(1, 'other');
    assert.equal(await scene.sources(), 2);
    assert.deepEqual(scene.lines, ['info']);
  });

  it('find each other over NATS, unless they have namespaces', async () => {
    await using nats = await startNats();
    const flags = (endpoint: string) => [
      ...['--nats-servers', nats.url, '--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', endpoint],
    ];
    await using first = await startService('discovery', flags('10.0.0.1:80'));
    await using third = await startService('discovery', [...flags('10.0.0.3:80'), '--namespace', 'third']);
    await using second = await startService('discovery', flags('10.0.0.2:80'));
    const sources = async (service: typeof first) => (await service.metrics()).value('llm_gateway_discovery_sources');
    await until(async () => (await sources(first)) === 2 && (await sources(second)) === 2);
    assert.equal(await sources(third), 1);
    await until(() => first.logs().some(({ msg }) => String(msg).startsWith('discovery of another store')));
  });
});

describe('what a discovery replica reads', () => {
  const source = (...flags: string[]): string => {
    const parsed = parseOptions(options, flags, {});
    assert.ok('values' in parsed);
    return sourceOf(parsed.values);
  };

  it('is the same for replicas that differ in passwords, times and certificates', () => {
    const manners = ['--discovery-redis-password', 'x', '--discovery-redis-status-ttl-ms', '5000'];
    assert.equal(source(), source(...manners, '--pd-disagg-protocol', 'vllm-kvt'));
    const endpoints = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints'];
    assert.equal(source(...endpoints, 'a:1,b:1'), source(...endpoints, 'b:1, a:1'));
  });

  it('differs for another store, and for another place in it', () => {
    const etcd = ['--llm-backend-discovery', 'etcd'];
    const endpoints = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints'];
    const all = [
      source(),
      source('--discovery-redis-host', 'other'),
      source('--discovery-redis-port', '6380'),
      source('--namespace', 'acme'),
      source(...etcd),
      source(...etcd, '--discovery-etcd-endpoints', 'other:2379'),
      source(...endpoints, 'a:1'),
      source(...endpoints, 'a:2'),
    ];
    assert.equal(new Set(all).size, all.length);
  });
});
