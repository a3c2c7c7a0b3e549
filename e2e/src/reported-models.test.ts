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

/** An engine that serves these models, and says which of them it was asked for. */
function engineOf(models: string[]) {
  return startEngine((request: EngineRequest) =>
    request.url === '/v1/models'
      ? respond(200, { object: 'list', data: models.map((id) => ({ id, object: 'model' })) })
      : completion({ tokens: models.slice(0, 1) }),
  );
}

describe('engines of different models behind one list of addresses', { timeout: 60_000 }, () => {
  const models = { llama: ['llama'], qwen: ['qwen', 'qwen-latest'] };
  let llama: Engine;
  let qwen: Engine;
  let gateway: Service;
  before(async () => {
    [llama, qwen] = await Promise.all([engineOf(models.llama), engineOf(models.qwen)]);
    gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', `${llama.endpoint},${qwen.endpoint}`],
      ...['--instance-models-interval-ms', '200'],
    ]);
  });
  after(async () => {
    await gateway.stop();
    await llama[Symbol.asyncDispose]();
    await qwen[Symbol.asyncDispose]();
  });
  const servedBy = async (model: string) => {
    const answer = await ask(gateway.url, { model });
    return answer.status === 200 ? JSON.parse(answer.text).choices[0].message.content : errorCode(answer);
  };
  const listed = async () => {
    const { data } = (await (await fetch(`${gateway.url}/v1/models`)).json()) as { data: { id: string }[] };
    return data.map(({ id }) => id).sort();
  };

  it('each get the requests for what they serve, aliases included', async () => {
    await until(async () => (await servedBy('unheard-of')) === 'model_not_found');
    for (let i = 0; i < 4; i++) {
      assert.equal(await servedBy('llama'), 'llama');
      assert.equal(await servedBy('qwen'), 'qwen');
      assert.equal(await servedBy('qwen-latest'), 'qwen');
    }
  });

  it('serve whatever is listed, also an adapter that was loaded later', async () => {
    models.llama.push('llama-adapter');
    await until(async () => (await servedBy('llama-adapter')) === 'llama');
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
