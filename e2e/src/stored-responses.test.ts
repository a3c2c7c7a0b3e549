import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  type Engine,
  type EngineRequest,
  event,
  respond,
  type Script,
  startEngine,
  stream,
  until,
} from '@llm-gateway/testing';
import OpenAI, { NotFoundError } from 'openai';
import { type Gateway, startGateway } from './gateway.ts';

let made = 0;

/** An engine that keeps the responses it made, and knows no others. */
function keepingEngine(name: string): Script {
  const kept = new Map<string, object>();
  const unknown = () =>
    respond(404, {
      error: { message: `${name} has no such response`, type: 'invalid_request_error', param: null, code: null },
    });
  const create = (request: EngineRequest) => {
    const { previous_response_id: previous, stream: isStream } = request.json() as Record<string, unknown>;
    if (typeof previous === 'string' && !kept.has(previous)) return unknown();
    const id = `resp_${name}_${made++}`;
    const content = [{ type: 'output_text', text: name, annotations: [] }];
    const output = [{ id: 'msg_1', type: 'message', role: 'assistant', status: 'completed', content }];
    const response = { id, object: 'response', status: 'completed', model: 'm', output, error: null };
    kept.set(id, response);
    if (isStream !== true) return respond(200, response);
    const created = { type: 'response.created', response: { ...response, status: 'in_progress', output: [] } };
    const completed = { type: 'response.completed', response };
    return stream([created, completed].map((data) => `event: ${data.type}\n${event(data)}`));
  };
  return (request) => {
    const [, id = '', call = ''] = /^\/v1\/responses\/([^/]+)(?:\/(.+))?$/.exec(request.url) ?? [];
    if (request.url === '/v1/responses/compact') return respond(200, { object: 'response.compaction', by: name });
    if (request.url === '/v1/responses') return create(request);
    const response = kept.get(id);
    if (response === undefined) return unknown();
    if (request.method === 'DELETE') kept.delete(id);
    return call === 'input_items'
      ? respond(200, { object: 'list', data: [{ id: 'msg_0', type: 'message', by: name }], has_more: false })
      : respond(200, { ...response, by: name, call });
  };
}

describe('responses that instances keep', { timeout: 120_000 }, () => {
  const engines: Engine[] = [];
  let gateway: Gateway;
  before(async () => {
    for (const name of ['a', 'b', 'c']) engines.push(await startEngine(keepingEngine(name)));
    gateway = await startGateway({ engines, replicas: { ingress: 2 } });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    for (const engine of engines) await engine[Symbol.asyncDispose]();
  });
  const client = (url: string | undefined) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'k', maxRetries: 0 });
  const first = () => client(gateway.ingress[0]?.url);
  const second = () => client(gateway.ingress[1]?.url);
  const create = (openai: OpenAI, previous?: string) =>
    openai.responses.create({
      model: 'm',
      input: 'Hi',
      ...(previous !== undefined && { previous_response_id: previous }),
    });
  const calls = () => engines.reduce((sum, { requests }) => sum + requests.length, 0);

  it('are continued where they were made, over any ingress', async () => {
    for (let round = 0; round < 6; round++) {
      const begun = await create(first());
      let { id } = begun;
      for (const openai of [second(), first(), second()]) {
        const next = await create(openai, id);
        assert.equal(next.output_text, begun.output_text);
        id = next.id;
      }
    }
    // The other ingress was told, and need not ask.
    const told = await create(first());
    await until(async () => {
      const before = calls();
      await create(second(), told.id);
      return calls() - before === 1;
    });
  });

  it('are continued also when they were streamed', async () => {
    for (let round = 0; round < 3; round++) {
      let id = '';
      for await (const part of await first().responses.create({ model: 'm', input: 'Hi', stream: true })) {
        if (part.type === 'response.completed') id = part.response.id;
      }
      const next = await create(first(), id);
      assert.equal(next.output_text, id.split('_')[1]);
    }
  });

  it('are had, listed, cancelled and deleted where they are', async () => {
    for (let round = 0; round < 3; round++) {
      const { id, output_text: by } = await create(first());
      assert.equal(((await second().responses.retrieve(id)) as unknown as { by: string }).by, by);
      const items = await second().responses.inputItems.list(id);
      assert.equal((items.data[0] as unknown as { by: string }).by, by);
      const cancelled = (await first().responses.cancel(id)) as unknown as { by: string; call: string };
      assert.deepEqual([cancelled.by, cancelled.call], [by, 'cancel']);
      await second().responses.delete(id);
      await assert.rejects(first().responses.retrieve(id), NotFoundError);
    }
  });

  it('are asked for of the instances by an ingress that nobody told', async () => {
    const { id, output_text: by } = await create(first());
    const late = await gateway.start('ingress');
    const next = await create(client(late.url), id);
    assert.equal(next.output_text, by);
  });

  it('that nobody has are the engine’s own 404', async () => {
    await assert.rejects(create(first(), 'resp_unheard_of'), (error) => {
      assert.ok(error instanceof NotFoundError);
      assert.match(error.message, /has no such response/);
      return true;
    });
    await assert.rejects(first().responses.retrieve('resp_unheard_of'), /has no such response/);
    await assert.rejects(first().responses.retrieve('no-response-id'), NotFoundError);
  });

  it('are compacted by any instance', async () => {
    const answer = await fetch(`${gateway.url}/v1/responses/compact`, {
      method: 'POST',
      body: '{"model":"m","input":[]}',
    });
    assert.equal(((await answer.json()) as { object: string }).object, 'response.compaction');
  });

  it('of an instance that has left are the 404 of another one', async () => {
    const { id, output_text: by } = await create(first());
    const index = ['a', 'b', 'c'].indexOf(by);
    await engines[index]?.stop();
    await assert.rejects(create(second(), id), /has no such response/);
    await assert.rejects(second().responses.retrieve(id), /has no such response/);
    await engines[index]?.start();
    assert.equal((await create(second(), id)).output_text, by);
  });
});
