import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import Anthropic, { APIError, NotFoundError, RateLimitError } from '@anthropic-ai/sdk';
import { type Service, startService, until } from '@llm-gateway/testing';
import OpenAI, { toFile } from 'openai';

const weather = {
  type: 'object',
  properties: {
    city: { type: 'string', minLength: 1 },
    unit: { enum: ['celsius', 'kelvin'] },
    hours: { type: 'number' },
  },
  required: ['city', 'unit'],
} as const;
const simplest = { city: 'a', unit: 'celsius' };
const model = 'org/small';

let engine: Service;
before(async () => {
  engine = await startService('engine-simulator', [
    ...['--time-to-first-token-ms', '0', '--inter-token-ms', '0', '--model', `${model},other`],
  ]);
});
after(() => engine[Symbol.asyncDispose]());

async function get(path: string): Promise<Readonly<Record<string, unknown>>> {
  return JSON.parse(await (await fetch(engine.url + path)).text());
}

describe('openai', () => {
  let openai: OpenAI;
  before(() => {
    openai = new OpenAI({ baseURL: `${engine.url}/v1`, apiKey: 'none', maxRetries: 0 });
  });
  const messages = [{ role: 'user' as const, content: 'What is the weather?' }];
  const tools = [{ type: 'function' as const, function: { name: 'weather', parameters: { ...weather } } }];

  test('finds models, with slashes in their names too', async () => {
    const ids: string[] = [];
    for await (const { id } of openai.models.list()) ids.push(id);
    assert.deepEqual(ids, [model, 'other']);
    assert.equal((await openai.models.retrieve(model)).id, model);
    assert.equal((await get(`/v1/models/${model}`)).id, model);
    await assert.rejects(openai.models.retrieve('org/none'), OpenAI.NotFoundError);
  });

  test('a chat that must call a tool calls it, with arguments that its schema allows', async () => {
    const named = { type: 'function' as const, function: { name: 'weather' } };
    for (const tool_choice of ['required' as const, named]) {
      const { choices } = await openai.chat.completions.create({ model, messages, tools, tool_choice });
      assert.equal(choices[0]?.finish_reason, 'tool_calls');
      assert.equal(choices[0].message.content, null);
      const call = choices[0].message.tool_calls?.[0];
      assert.ok(call?.type === 'function');
      assert.equal(call.function.name, 'weather');
      assert.deepEqual(JSON.parse(call.function.arguments), simplest);
      const stream = openai.chat.completions.stream({ model, messages, tools, tool_choice });
      const [streamed] = (await stream.finalChatCompletion()).choices[0]?.message.tool_calls ?? [];
      assert.deepEqual(streamed?.type === 'function' && streamed.function.arguments, call.function.arguments);
    }
  });

  test('a chat that may call a tool answers with text; what its tools and results say is part of its prompt', async () => {
    const free = await openai.chat.completions.create({ model, messages, tools });
    assert.equal(free.choices[0]?.finish_reason, 'stop');
    const without = await openai.chat.completions.create({ model, messages });
    assert.ok((free.usage?.prompt_tokens ?? 0) > (without.usage?.prompt_tokens ?? 0));
    const calls = [{ id: 'call_1', type: 'function' as const, function: { name: 'weather', arguments: '{}' } }];
    const conversation = [
      ...messages,
      { role: 'assistant' as const, tool_calls: calls },
      { role: 'tool' as const, tool_call_id: 'call_1', content: 'sunny' },
    ];
    const next = await openai.chat.completions.create({ model, messages: conversation, tools });
    assert.ok((next.usage?.prompt_tokens ?? 0) > (free.usage?.prompt_tokens ?? 0));
  });

  test('a tool that nobody gave cannot be chosen', async () => {
    const tool_choice = { type: 'function' as const, function: { name: 'none' } };
    for (const wrong of [{ tools, tool_choice }, { tool_choice: 'required' as const }]) {
      await assert.rejects(openai.chat.completions.create({ model, messages, ...wrong }), OpenAI.BadRequestError);
    }
  });

  test('an output that must be JSON of a schema is, also when the limit cuts it off', async () => {
    const response_format = { type: 'json_schema' as const, json_schema: { name: 'w', schema: { ...weather } } };
    const { choices } = await openai.chat.completions.create({ model, messages, response_format });
    assert.deepEqual(JSON.parse(choices[0]?.message.content ?? ''), simplest);
    const cut = await openai.chat.completions.create({ model, messages, response_format, max_tokens: 2 });
    assert.deepEqual([cut.choices[0]?.finish_reason, cut.usage?.completion_tokens], ['length', 2]);
    const parsed = await openai.responses.parse({
      model,
      input: 'x',
      text: { format: { type: 'json_schema', name: 'w', schema: { ...weather } } },
    });
    assert.deepEqual(JSON.parse(parsed.output_text), simplest);
  });

  test('responses: made, streamed, followed on, asked for again, deleted', async () => {
    const first = await openai.responses.create({ model, input: 'hello', instructions: 'Be brief.' });
    assert.equal(first.status, 'completed');
    assert.equal(first.output_text.split(' ').length, 32);
    assert.equal(first.usage?.output_tokens, 32);
    assert.deepEqual((await openai.responses.retrieve(first.id)).output, first.output);

    const stream = openai.responses.stream({ model, input: 'go on', previous_response_id: first.id });
    const types: string[] = [];
    const numbers: number[] = [];
    for await (const event of stream) {
      if (types.at(-1) !== event.type) types.push(event.type);
      numbers.push(event.sequence_number);
    }
    assert.deepEqual(types, [
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => index),
    );
    const second = await stream.finalResponse();
    assert.ok((second.usage?.input_tokens ?? 0) > (first.usage?.input_tokens ?? 0));
    const texts: unknown[] = [];
    for await (const item of openai.responses.inputItems.list(second.id, { order: 'asc', limit: 2 })) {
      if (item.type === 'message') texts.push(item.content[0]);
    }
    assert.deepEqual(
      texts.map((part) => (part as { text: string }).text),
      ['hello', first.output_text, 'go on'],
    );
    await openai.responses.delete(first.id);
    await assert.rejects(openai.responses.retrieve(first.id), OpenAI.NotFoundError);
    const gone = { model, input: 'x', previous_response_id: first.id };
    await assert.rejects(openai.responses.create(gone), OpenAI.NotFoundError);
    const unstored = await openai.responses.create({ model, input: 'hello', store: false });
    await assert.rejects(openai.responses.retrieve(unstored.id), OpenAI.NotFoundError);
  });

  test('responses: a forced tool is called, and its result goes on', async () => {
    const input = [{ role: 'user' as const, content: 'weather?' }];
    const tool = { type: 'function' as const, name: 'weather', parameters: { ...weather }, strict: false };
    const asked = { model, input, tools: [tool], tool_choice: { type: 'function' as const, name: 'weather' } };
    const { output } = await openai.responses.create(asked);
    const call = output[0];
    assert.ok(call?.type === 'function_call');
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ['weather', simplest]);
    const streamed = await openai.responses.stream(asked).finalResponse();
    assert.ok(streamed.output[0]?.type === 'function_call');
    assert.equal(streamed.output[0].arguments, call.arguments);
    const result = { type: 'function_call_output' as const, call_id: call.call_id, output: 'sunny' };
    const next = await openai.responses.create({ model, input: [...input, call, result], tools: [tool] });
    assert.equal(next.output[0]?.type, 'message');
    const short = await openai.responses.create({ model, input, max_output_tokens: 3 });
    assert.deepEqual([short.status, short.incomplete_details], ['incomplete', { reason: 'max_output_tokens' }]);
  });

  test('responses: in the background they are polled or cancelled', async () => {
    const quick = await openai.responses.create({ model, input: 'x', background: true });
    assert.equal(quick.status, 'queued');
    await until(async () => (await openai.responses.retrieve(quick.id)).status === 'completed');
    await assert.rejects(openai.responses.cancel(quick.id), OpenAI.BadRequestError);
    const headers = { 'x-sim-stall': 'prefill' };
    const stalled = await openai.responses.create({ model, input: 'x', background: true }, { headers });
    assert.equal((await openai.responses.cancel(stalled.id)).status, 'cancelled');
    assert.equal((await openai.responses.retrieve(stalled.id)).status, 'cancelled');
    await until(async () => (await get('/simulator/state')).running === 0);
  });

  test('responses: compacted, they go on; tokens are counted without an answer', async () => {
    const compacted = await openai.responses.compact({ model, input: [{ role: 'user', content: 'hello' }] });
    assert.equal(compacted.object, 'response.compaction');
    assert.deepEqual(
      compacted.output.map(({ type }) => type),
      ['message', 'compaction'],
    );
    const next = await openai.responses.create({ model, input: compacted.output as OpenAI.Responses.ResponseInput });
    assert.equal(next.status, 'completed');
    const counted = await openai.responses.inputTokens.count({ model, input: 'hello' });
    assert.equal(counted.input_tokens, (await openai.responses.create({ model, input: 'hello' })).usage?.input_tokens);
  });

  test('an error in the middle of a stream of each API is one to the client', async () => {
    const headers = { 'x-sim-error-after': '2' };
    const chat = await openai.chat.completions.create({ model, messages, stream: true }, { headers });
    await assert.rejects(Array.fromAsync(chat), OpenAI.APIError);
    const types: string[] = [];
    const events = await openai.responses.create({ model, input: 'x', stream: true }, { headers });
    await Array.fromAsync(events, ({ type }) => types.push(type)).catch(() => {});
    assert.ok(types.includes('response.output_text.delta'));
    assert.ok(!types.includes('response.completed'));
  });

  test('embeddings, audio and images', async () => {
    const { data } = await openai.embeddings.create({ model, input: ['x', 'y'] });
    assert.equal(data[1]?.embedding.length, 64);
    const audio = await openai.audio.speech.create({ model, voice: 'alloy', input: 'Hello there' });
    assert.equal(audio.headers.get('content-type'), 'audio/mpeg');
    const speech = Buffer.from(await audio.arrayBuffer());
    const file = () => toFile(speech, 'speech.mp3');
    const { text } = await openai.audio.transcriptions.create({ model, file: await file() });
    assert.equal(text.split(' ').length, 12);
    const verbose = { model, response_format: 'verbose_json' as const };
    assert.equal((await openai.audio.transcriptions.create({ ...verbose, file: await file() })).text, text);
    const events = await openai.audio.transcriptions.create({ model, file: await file(), stream: true });
    assert.equal((await Array.fromAsync(events)).at(-1)?.type, 'transcript.text.done');
    const other = await openai.audio.transcriptions.create({ model, file: await toFile(Buffer.from('x'), 'x.mp3') });
    assert.notEqual(other.text, text);
    assert.equal((await openai.audio.translations.create({ model, file: await file() })).text, text);
    const wav = await openai.audio.speech.create({ model, voice: 'alloy', input: 'Hello', response_format: 'wav' });
    assert.equal(Buffer.from(await wav.arrayBuffer()).toString('latin1', 0, 4), 'RIFF');
    const images = await openai.images.generate({ model, prompt: 'a dot', n: 2 });
    assert.equal(images.data?.length, 2);
    assert.equal(Buffer.from(images.data[0]?.b64_json ?? '', 'base64').toString('latin1', 1, 4), 'PNG');
    const broken = await fetch(`${engine.url}/v1/audio/transcriptions`, {
      method: 'POST',
      headers: { 'content-type': 'multipart/form-data; boundary=x' },
      body: 'no form',
    });
    assert.equal(broken.status, 400);
  });
});

describe('@anthropic-ai/sdk', () => {
  let anthropic: Anthropic;
  before(() => {
    anthropic = new Anthropic({ baseURL: engine.url, apiKey: 'none', maxRetries: 0 });
  });
  const asked = { model, max_tokens: 100, messages: [{ role: 'user' as const, content: 'hello' }] };
  const tool = { name: 'weather', input_schema: { ...weather, required: ['city', 'unit'] } };

  test('a message ends by itself, at the limit or at a stop sequence, and streams the same', async () => {
    const whole = await anthropic.messages.create({ ...asked, system: 'Be brief.' });
    assert.deepEqual([whole.type, whole.role, whole.stop_reason], ['message', 'assistant', 'end_turn']);
    assert.equal(whole.usage.output_tokens, 32);
    const stream = anthropic.messages.stream({ ...asked, system: 'Be brief.' });
    const events: string[] = [];
    stream.on('streamEvent', ({ type }) => void (events.at(-1) === type || events.push(type)));
    const streamed = await stream.finalMessage();
    assert.deepEqual(streamed.content, whole.content);
    assert.deepEqual([streamed.usage.input_tokens, streamed.usage.output_tokens], [whole.usage.input_tokens, 32]);
    assert.deepEqual(events, [
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
    assert.equal((await anthropic.messages.create({ ...asked, max_tokens: 3 })).stop_reason, 'max_tokens');
    const stopped = await anthropic.messages.create({ ...asked, stop_sequences: [' '] });
    assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ['stop_sequence', ' ']);
  });

  test('a tool that must be used is, and its result goes on', async () => {
    for (const tool_choice of [{ type: 'any' as const }, { type: 'tool' as const, name: 'weather' }]) {
      const forced = { ...asked, tools: [tool], tool_choice };
      const { content, stop_reason } = await anthropic.messages.create(forced);
      assert.equal(stop_reason, 'tool_use');
      const use = content[0];
      assert.ok(use?.type === 'tool_use');
      assert.deepEqual([use.name, use.input], ['weather', simplest]);
      const streamed = (await anthropic.messages.stream(forced).finalMessage()).content[0];
      assert.ok(streamed?.type === 'tool_use');
      assert.deepEqual([streamed.id, streamed.input], [use.id, use.input]);
      const result = { type: 'tool_result' as const, tool_use_id: use.id, content: 'sunny' };
      const messages = [
        ...asked.messages,
        { role: 'assistant' as const, content },
        { role: 'user' as const, content: [result] },
      ];
      const next = await anthropic.messages.create({ ...asked, messages, tools: [tool] });
      assert.equal(next.content[0]?.type, 'text');
    }
  });

  test('tokens are counted as they are charged', async () => {
    const { max_tokens: _, ...counted } = { ...asked, system: 'x', tools: [tool] };
    const { input_tokens } = await anthropic.messages.countTokens(counted);
    assert.equal((await anthropic.messages.create({ ...asked, ...counted })).usage.input_tokens, input_tokens);
  });

  test('errors are of the class that the client has for them', async () => {
    await assert.rejects(anthropic.messages.create({ ...asked, model: 'none' }), (error) => {
      assert.ok(error instanceof NotFoundError);
      assert.equal(error.type, 'not_found_error');
      return true;
    });
    const limited = { headers: { 'x-sim-status': '429' } };
    await assert.rejects(anthropic.messages.create(asked, limited), RateLimitError);
    const overloaded = { headers: { 'x-sim-status': '529' } };
    await assert.rejects(anthropic.messages.create(asked, overloaded), { status: 529, type: 'overloaded_error' });
    const failing = anthropic.messages.stream(asked, { headers: { 'x-sim-error-after': '2' } });
    await assert.rejects(failing.finalMessage(), (error) => error instanceof APIError && error.type === 'api_error');
  });
});
