import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { APICallError, generateText, streamText } from 'ai';
import OpenAI from 'openai';
import {
  common,
  type Expectation,
  expectedRows,
  type Fault,
  type Row,
  rows,
  type Seen,
  startFaultySite,
} from './faults.ts';
import { runPython } from './python.ts';

/** One call of an SDK; gives the text of the answer. */
type Call = (row: Row) => Promise<string>;

const messages = [{ role: 'user' as const, content: 'Hi' }];
const modelFor = (fault: Fault | 'none') => (fault === 'refused' ? 'refused' : 'm');
const headersFor = (fault: Fault | 'none'): Record<string, string> => (fault === 'none' ? {} : { 'x-fault': fault });

async function seen(call: Promise<string>): Promise<Seen> {
  try {
    return { text: await call };
  } catch (error) {
    assert.ok(error instanceof Error);
    const status = 'status' in error ? error.status : 'statusCode' in error ? error.statusCode : undefined;
    return { error: error.constructor.name, status: typeof status === 'number' ? status : null };
  }
}

describe('SDKs, at every fault of an engine', { timeout: 300_000 }, () => {
  let site: Awaited<ReturnType<typeof startFaultySite>>;
  before(async () => {
    site = await startFaultySite();
  });
  after(() => site[Symbol.asyncDispose]());

  /** All faults at the same time. */
  const walk = async (call: Call, expectation: Expectation) => {
    const results = await Promise.all(rows.map(async (row) => ({ ...row, ...(await seen(call(row))) })));
    assert.deepEqual(results, expectedRows(expectation));
  };
  /** Node's fetch fails by itself when a body breaks off. */
  const ofNode = { ...common, 'cut in one piece': { error: 'TypeError', status: null } };

  /** The AI SDK has one class for an answer, and one for what a stream says. */
  const call = (status: number) => ({ error: APICallError.name, status });
  const broken = { error: 'StreamProviderError', status: null };
  const ofAiSdk: Expectation = {
    none: { text: 'Hello' },
    refused: call(502),
    reset: call(502),
    '429': call(429),
    '500': call(500),
    stall: call(504),
    'cut in one piece': call(200),
    cut: broken,
    'error event': call(500),
    'late error event': { ...broken, status: 500 },
    'late stall': broken,
  };

  const openai = (fault: Fault | 'none') =>
    new OpenAI({ baseURL: `${site.url}/v1`, apiKey: 'k', maxRetries: 0, defaultHeaders: headersFor(fault) });

  it('openai raises its classes for chat completions', async () => {
    await walk(async ({ fault, stream }) => {
      const model = modelFor(fault);
      const { completions } = openai(fault).chat;
      if (!stream) {
        const answer = await completions.create({ model, messages });
        return answer.choices[0]?.message.content ?? '';
      }
      let text = '';
      for await (const chunk of await completions.create({ model, messages, stream: true })) {
        text += chunk.choices[0]?.delta.content ?? '';
      }
      return text;
    }, ofNode);
  });

  it('openai raises its classes for responses', async () => {
    await walk(async ({ fault, stream }) => {
      const model = modelFor(fault);
      const { responses } = openai(fault);
      if (!stream) return (await responses.create({ model, input: 'Hi' })).output_text;
      let text = '';
      for await (const event of await responses.create({ model, input: 'Hi', stream: true })) {
        if (event.type === 'response.output_text.delta') text += event.delta;
      }
      return text;
    }, ofNode);
  });

  it('@anthropic-ai/sdk raises its classes for messages', async () => {
    await walk(
      async ({ fault, stream }) => {
        const anthropic = new Anthropic({
          baseURL: site.url,
          apiKey: 'k',
          maxRetries: 0,
          defaultHeaders: headersFor(fault),
        });
        const request = { model: modelFor(fault), max_tokens: 10, messages };
        if (!stream) {
          const [block] = (await anthropic.messages.create(request)).content;
          return block?.type === 'text' ? block.text : '';
        }
        let text = '';
        for await (const event of await anthropic.messages.create({ ...request, stream: true })) {
          if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') text += event.delta.text;
        }
        return text;
      },
      { ...ofNode, stall: { error: 'GatewayTimeoutError', status: 504 } },
    );
  });

  it('@ai-sdk/openai-compatible raises its class', async () => {
    await walk(async ({ fault, stream }) => {
      const provider = createOpenAICompatible({
        name: 'gateway',
        baseURL: `${site.url}/v1`,
        apiKey: 'k',
        headers: headersFor(fault),
      });
      const request = { model: provider(modelFor(fault)), prompt: 'Hi', maxRetries: 0 };
      if (!stream) return (await generateText(request)).text;
      let text = '';
      for await (const part of streamText({ ...request, onError: () => {} }).fullStream) {
        if (part.type === 'error') throw part.error;
        if (part.type === 'text-delta') text += part.text;
      }
      return text;
    }, ofAiSdk);
  });

  it('openai and anthropic of Python raise their classes', async () => {
    const packages = ['openai==3.57.0', 'anthropic==2.14.0'];
    const script = join(import.meta.dirname, 'sdks.py');
    const printed = JSON.parse(await runPython(script, [site.url, JSON.stringify(rows)], packages));
    const streamed = { error: 'APIStatusError', status: 200 };
    const timeout = { error: 'GatewayTimeoutError', status: 504 };
    const ofAnthropic = {
      stall: timeout,
      cut: streamed,
      'late cut within a line': { error: 'RemoteProtocolError', status: null },
      'late error event': streamed,
      'late stall': streamed,
    };
    assert.deepEqual(printed, {
      chat: expectedRows(common),
      // The engine's own error event, which this SDK gives as an event; of the gateway's it makes
      // an exception.
      responses: expectedRows({ ...common, 'late error event': { text: 'Hello scripted' } }),
      messages: expectedRows({ ...common, ...ofAnthropic }),
    });
  });
});
