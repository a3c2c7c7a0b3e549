import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { completion, type Engine, refuse, respond, stall, startEngine, stream, until } from '@llm-gateway/testing';
import { generateText, streamText } from 'ai';
import OpenAI, {
  APIConnectionError,
  APIUserAbortError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  RateLimitError,
} from 'openai';
import { type Gateway, startGateway } from './gateway.ts';

describe('clients that nobody here wrote', () => {
  let engine: Engine;
  let gateway: Gateway;
  let openai: OpenAI;
  before(async () => {
    engine = await startEngine();
    gateway = await startGateway({ engines: [engine] });
    openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'client-key', maxRetries: 0 });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });
  const messages = [{ role: 'user' as const, content: 'Hi' }];

  describe('openai', () => {
    it('completes a chat', async () => {
      engine.script = () => completion({ tokens: ['Hello', ' there'] });
      const answer = await openai.chat.completions.create({ model: 'm', messages });
      assert.equal(answer.choices[0]?.message.content, 'Hello there');
      assert.equal(engine.requests.at(-1)?.headers.authorization, 'Bearer client-key');
    });

    it('streams a chat', async () => {
      engine.script = () => completion({ tokens: ['a', 'b', 'c'], gapMs: 5 });
      let text = '';
      for await (const chunk of await openai.chat.completions.create({ model: 'm', messages, stream: true })) {
        text += chunk.choices[0]?.delta.content ?? '';
      }
      assert.equal(text, 'abc');
    });

    it('aborts a stream, and the engine sees it', async () => {
      engine.script = () => completion({ tokens: Array.from({ length: 1000 }, () => 'x'), gapMs: 10 });
      const running = await openai.chat.completions.create({ model: 'm', messages, stream: true });
      for await (const _ of running) break;
      const request = engine.requests.at(-1);
      await until(() => request?.abandoned);
    });

    it('aborts before the answer', async () => {
      engine.script = () => stall('before-head');
      const controller = new AbortController();
      const seen = engine.requests.length;
      const running = openai.chat.completions.create({ model: 'm', messages }, { signal: controller.signal });
      const request = await engine.request(seen);
      controller.abort();
      await assert.rejects(running, APIUserAbortError);
      await until(() => request.abandoned);
    });

    it('lists models', async () => {
      engine.script = () =>
        respond(200, { object: 'list', data: [{ id: 'm', object: 'model', created: 1, owned_by: 'x' }] });
      const models = await openai.models.list();
      assert.deepEqual(
        models.data.map((model) => model.id),
        ['m'],
      );
    });

    it('throws its own error classes', async () => {
      for (const [status, error] of [
        [400, BadRequestError],
        [404, NotFoundError],
        [429, RateLimitError],
        [500, InternalServerError],
      ] as const) {
        engine.script = () => refuse(status);
        await assert.rejects(openai.chat.completions.create({ model: 'm', messages }), error);
      }
    });

    it('retries by itself as it does against OpenAI', async () => {
      let calls = 0;
      engine.script = () => (++calls < 3 ? refuse(429, { retryAfterMs: 10 }) : completion());
      const patient = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'k', maxRetries: 2 });
      const answer = await patient.chat.completions.create({ model: 'm', messages });
      assert.equal(answer.choices[0]?.message.content, 'Hello world');
      assert.equal(calls, 3);
    });

    it('takes a cut stream for an error, not for an end', async () => {
      engine.script = () => async (reply) => {
        await stream(['data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'])({
          ...reply,
          end: () => reply.close(),
        });
      };
      const running = await openai.chat.completions.create({ model: 'm', messages, stream: true });
      await assert.rejects(
        async () => {
          for await (const _ of running);
        },
        (error) => error instanceof OpenAI.APIError || error instanceof APIConnectionError,
      );
    });
  });

  describe('@ai-sdk/openai-compatible', () => {
    const model = () => createOpenAICompatible({ name: 'gateway', baseURL: `${gateway.url}/v1`, apiKey: 'k' })('m');

    it('generates text', async () => {
      engine.script = () => completion({ tokens: ['Hello', ' there'] });
      const { text, usage } = await generateText({ model: model(), prompt: 'Hi', maxRetries: 0 });
      assert.equal(text, 'Hello there');
      assert.equal(usage.outputTokens, 2);
    });

    it('streams text', async () => {
      engine.script = () => completion({ tokens: ['a', 'b', 'c'], gapMs: 5 });
      let text = '';
      for await (const part of streamText({ model: model(), prompt: 'Hi', maxRetries: 0 }).textStream) text += part;
      assert.equal(text, 'abc');
    });
  });
});
