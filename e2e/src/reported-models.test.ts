import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  completion,
  type Engine,
  type EngineRequest,
  respond,
  type Service,
  startEngine,
  startService,
  until,
} from '@llm-gateway/testing';
import { ask, errorCode } from './answer.ts';

/**
 * An engine that serves the models that it lists, and others that it does not; it answers with the
 * first one's name.
 */
function engineOf(models: string[], unlisted: string[] = []) {
  return startEngine((request: EngineRequest) => {
    if (request.url === '/v1/models')
      return respond(200, { object: 'list', data: models.map((id) => ({ id, object: 'model' })) });
    const { model } = JSON.parse(request.body.toString()) as { model: string };
    return models.includes(model) || unlisted.includes(model)
      ? completion({ tokens: models.slice(0, 1) })
      : respond(404, { error: { message: 'no such model here', type: 'NotFoundError', code: "the engine's own" } });
  });
}

describe('engines of different models behind one list of addresses', { timeout: 60_000 }, () => {
  const models = { llama: ['llama'], qwen: ['qwen', 'qwen-latest'] };
  let llama: Engine;
  let qwen: Engine;
  let gateway: Service;
  let withFallback: Service;
  let spare: Engine;
  before(async () => {
    [llama, qwen, spare] = await Promise.all([
      engineOf(models.llama),
      engineOf(models.qwen, ['qwen-unlisted']),
      engineOf(['spare'], ['unheard-of']),
    ]);
    const flags = [
      ...['--llm-backend-endpoints', `${llama.address},${qwen.address}`],
      ...['--instance-models-interval-ms', '200'],
    ];
    const routes = [
      { base_url: 'local', prefix: '*' },
      { base_url: spare.url, fallback: true },
    ];
    [gateway, withFallback] = await Promise.all([
      startService('standalone', flags),
      startService('standalone', [...flags, '--route-policy', 'prefix', '--route-config', JSON.stringify(routes)]),
    ]);
  });
  after(async () => {
    await Promise.all([gateway.stop(), withFallback.stop()]);
    await spare[Symbol.asyncDispose]();
    await llama[Symbol.asyncDispose]();
    await qwen[Symbol.asyncDispose]();
  });
  const servedBy = async (model: string, { url } = gateway) => {
    const answer = await ask(url, { model });
    return answer.status === 200 ? JSON.parse(answer.text).choices[0].message.content : errorCode(answer);
  };
  const isServedBy = async (model: string, name: string, service = gateway) => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => servedBy(model, service)));
    return answers.every((answer) => answer === name);
  };
  const listed = async () => {
    const { data } = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    return data.map(({ id }) => id).sort();
  };

  it('each get the requests for what they serve, aliases included', async () => {
    for (const service of [gateway, withFallback]) {
      for (const model of ['llama', 'qwen']) await until(() => isServedBy(model, model, service), { what: model });
    }
    for (let i = 0; i < 4; i++) {
      assert.equal(await servedBy('llama'), 'llama');
      assert.equal(await servedBy('qwen'), 'qwen');
      assert.equal(await servedBy('qwen-latest'), 'qwen');
    }
  });

  it('are asked for what nobody lists, and say themselves what they do not have', async () => {
    const answers: unknown[] = [];
    for (let i = 0; i < 20; i++) answers.push(await servedBy('qwen-unlisted'));
    const counts = ['qwen', "the engine's own"].map((name) => answers.filter((answer) => answer === name).length);
    assert.deepEqual(counts, [10, 10], 'that it does not have it is no fault of an engine');
    for (let i = 0; i < 4; i++) assert.equal(await servedBy('unheard-of'), "the engine's own");
    for (let i = 0; i < 4; i++) assert.equal(await servedBy('llama'), 'llama');
  });

  it('are followed by the fallbacks for what nobody lists and they do not have', async () => {
    for (let i = 0; i < 4; i++) {
      assert.equal(await servedBy('unheard-of', withFallback), 'spare');
      assert.equal(await servedBy('llama', withFallback), 'llama');
    }
    assert.equal(spare.requests.length, 4);
  });

  it('serve whatever is listed, also an adapter that was loaded later', async () => {
    models.llama.push('llama-adapter');
    await until(() => isServedBy('llama-adapter', 'llama'));
    await until(async () => (await listed()).includes('llama-adapter'), { timeoutMs: 15_000 });
    const names = await listed();
    assert.deepEqual(names, ['llama', 'llama-adapter', 'qwen', 'qwen-latest']);
    for (const name of names) assert.match(String(await servedBy(name)), /^(?:llama|qwen)$/);
  });

  it('are not served any more when they were unloaded', async () => {
    models.llama.pop();
    await until(async () => (await servedBy('llama-adapter')) === 'no_instance');
  });
});
