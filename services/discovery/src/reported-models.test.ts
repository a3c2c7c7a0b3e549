import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import { Engine, freePort, respond, startEngine, until } from '@llm-gateway/testing';
import { Upstream } from '@llm-gateway/upstream';
import { ReportedModels } from './reported-models.ts';

const limits = {
  upstreamConnectTimeoutMs: 2000,
  upstreamHeadersTimeoutMs: 3000,
  upstreamIdleTimeoutMs: 3000,
  upstreamKeepAliveMs: 1000,
  upstreamMaxConnections: 1,
};

function instance(port: number, change: Partial<Instance> = {}): Instance {
  const id = `127.0.0.1:${port}_dp0`;
  const usual = { roles: ['neutral' as const], host: '127.0.0.1', port, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1 };
  return { id, ...usual, model: '', ...change };
}

const list = (...ids: unknown[]) => respond(200, { object: 'list', data: ids.map((id) => ({ id })) });

/** What was reported of each instance, the latest. */
class Scene implements AsyncDisposable {
  readonly upstream = new Upstream(limits);
  readonly reported = new Map<string, readonly string[] | undefined>();
  readonly away: string[] = [];
  readonly tooMany: number[] = [];
  readonly models: ReportedModels;

  constructor(intervalMs = 60_000) {
    this.models = new ReportedModels({
      upstream: this.upstream,
      intervalMs,
      onChange: (upserts) => {
        for (const { id, models } of upserts) this.reported.set(id, models);
      },
      onAway: ({ id }) => this.away.push(id),
      onTooMany: (_, bytes) => this.tooMany.push(bytes),
    });
  }

  of({ port }: { readonly port: number }): readonly string[] | undefined {
    return this.reported.get(instance(port).id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.models[Symbol.dispose]();
    await this.upstream[Symbol.asyncDispose]();
  }
}

describe('the models that instances report', { concurrency: true, timeout: 30_000 }, () => {
  it('tell once of an instance that cannot be reached, and not of one that answers something else', async () => {
    const port = await freePort();
    await using engine = await startEngine(() => respond(404, {}));
    await using scene = new Scene(10);
    scene.models.change([instance(port), instance(engine.port)], []);
    await until(() => engine.requests.length > 3);
    assert.deepEqual(scene.away, [instance(port).id]);
  });

  it('are asked for once, and known of an instance from then on', async () => {
    await using engine = await startEngine(() => list('qwen', 'lora', 'qwen'));
    await using scene = new Scene();
    const [first] = scene.models.change([instance(engine.port)], []);
    assert.equal(first?.models, undefined);
    await until(() => scene.of(engine) !== undefined);
    assert.deepEqual(scene.of(engine), ['lora', 'qwen']);
    assert.equal(engine.requests.length, 1);
    assert.equal(engine.requests[0]?.url, '/v1/models');
    const [again] = scene.models.change([instance(engine.port, { model: 'qwen' })], []);
    assert.deepEqual(again?.models, ['lora', 'qwen'], 'it changed, and is where it was');
    await engine.request(1);
  });

  it('are asked for again after a while, and reported when they are others', async () => {
    let names = ['qwen'];
    await using engine = await startEngine(() => list(...names));
    await using scene = new Scene(300);
    scene.models.change([instance(engine.port)], []);
    await until(() => scene.of(engine)?.length === 1);
    names = ['qwen', 'adapter'];
    await until(() => scene.of(engine)?.length === 2);
    engine.script = () => respond(500);
    const seen = engine.requests.length;
    await engine.request(seen + 1);
    assert.deepEqual(scene.of(engine), ['adapter', 'qwen'], 'it keeps what it said last');
  });

  it('are known of an engine with hundreds of adapters; of one with too many none is, which is told once', async () => {
    const adapters = Array.from({ length: 300 }, (_, n) => `acme/customer-adapter-${n}`);
    let names = adapters;
    await using engine = await startEngine(() => list(...names));
    await using scene = new Scene(50);
    scene.models.change([instance(engine.port)], []);
    await until(() => scene.of(engine)?.length === 300);
    names = Array.from({ length: 2000 }, (_, n) => `a-model-with-a-long-name-${n}`);
    await until(() => scene.reported.has(instance(engine.port).id) && scene.of(engine) === undefined);
    await engine.request(engine.requests.length + 3);
    assert.deepEqual(scene.tooMany, [names.reduce((bytes, name) => bytes + name.length + 3, 0)]);
  });

  it('are unknown of an engine that says none, or nonsense', async () => {
    const answers = [
      respond(404),
      respond(401),
      respond(200, 'no JSON'),
      respond(200, { data: 'no list' }),
      list(),
      list('', 7, null),
      respond(200, `{"data":[${' '.repeat(1_100_000)}]}`),
      respond(200, '['.repeat(500_000)),
    ];
    const ask = async (answer: (typeof answers)[number]) => {
      await using engine = await startEngine(() => answer);
      await using scene = new Scene();
      scene.models.change([instance(engine.port)], []);
      await engine.request(1);
      assert.equal(scene.reported.size, 0);
    };
    await Promise.all(answers.map(ask));
  });

  it('are had of an engine that starts later, and not of one that left meanwhile', async () => {
    const port = await freePort();
    await using scene = new Scene();
    scene.models.change([instance(port)], []);
    await using engine = new Engine(port, () => list('late'), {});
    await engine.start();
    await until(() => scene.of(engine)?.[0] === 'late');

    await using leaving = await startEngine(() => async (exchange) => {
      scene.models.change([], [instance(leaving.port).id]);
      await list('gone')(exchange);
    });
    scene.models.change([instance(leaving.port)], []);
    await until(() => leaving.requests[0]?.answeredAt);
    await until(() => leaving.live === 0);
    assert.equal(scene.of(leaving), undefined);
  });
});
