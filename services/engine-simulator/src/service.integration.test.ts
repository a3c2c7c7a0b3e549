import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { freePort, readMetrics, type Service, startService, until } from '@llm-gateway/testing';

const quick = ['--time-to-first-token-ms', '0', '--inter-token-ms', '0', '--drain-delay-ms', '0'];
const messages = [{ role: 'user', content: 'hello' }];

interface Asked {
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

const post = (url: string, body: object, { path = '/v1/chat/completions', headers = {}, signal }: Asked = {}) =>
  fetch(url + path, { method: 'POST', body: JSON.stringify(body), headers, ...(signal && { signal }) });

interface State {
  readonly requests: number;
  readonly running: number;
  readonly waiting: number;
  readonly transfers: number;
  readonly abandoned: number;
}

const json = async (response: Response) => JSON.parse(await response.text());

const state = async (url: string): Promise<State> => json(await fetch(`${url}/simulator/state`));

describe('one engine', () => {
  let engine: Service;
  let url: string;
  before(async () => {
    engine = await startService('engine-simulator', [
      ...quick,
      '--model',
      'a,b',
      '--name',
      'sim',
      '--max-concurrency',
      '2',
      '--queue-limit',
      '1',
    ]);
    url = engine.url;
  });
  after(() => engine[Symbol.asyncDispose]());

  test('answers chats, completions, embeddings, models, tokens, health and version', async () => {
    const chat = await post(url, { model: 'a', messages });
    assert.equal(chat.headers.get('x-sim-engine'), 'sim');
    const answer = await json(chat);
    assert.equal(answer.model, 'a');
    assert.equal(answer.usage.completion_tokens, 32);
    assert.deepEqual((await json(await post(url, { model: 'a', messages }))).choices, answer.choices);
    const completion = await json(await post(url, { prompt: 'x', model: 'b' }, { path: '/v1/completions' }));
    assert.equal(completion.object, 'text_completion');
    const embeddings = await json(
      await post(url, { input: ['x', 'y'], encoding_format: 'base64' }, { path: '/v1/embeddings' }),
    );
    assert.equal(Buffer.from(embeddings.data[1].embedding, 'base64').length, 64 * 4);
    for (const dimensions of [1_000_000_000, 0, 1.5, 'x']) {
      const refused = await post(url, { input: 'x', dimensions }, { path: '/v1/embeddings' });
      assert.equal(refused.status, 400, String(dimensions));
    }
    const models = await json(await fetch(`${url}/v1/models`));
    assert.deepEqual(
      models.data.map((model: { id: string }) => model.id),
      ['a', 'b'],
    );
    const { tokens } = await json(await post(url, { prompt: 'naïve' }, { path: '/tokenize' }));
    assert.deepEqual(await json(await post(url, { tokens }, { path: '/detokenize' })), { prompt: 'naïve' });
    assert.equal((await fetch(`${url}/health`)).status, 200);
    assert.match((await json(await fetch(`${url}/version`))).version, /^\d/);
  });

  test('refuses as vLLM: wrong model, wrong body, wrong path, wrong method', async () => {
    const wrongModel = await post(url, { model: 'c', messages });
    assert.equal(wrongModel.status, 404);
    const { error } = await json(wrongModel);
    assert.deepEqual([error.type, error.code, error.param], ['NotFoundError', 404, 'model']);
    assert.equal((await fetch(`${url}/v1/completions`, { method: 'POST', body: '{' })).status, 400);
    assert.equal((await fetch(`${url}/nothing`)).status, 404);
    const wrongMethod = await fetch(`${url}/v1/completions`);
    assert.deepEqual([wrongMethod.status, wrongMethod.headers.get('allow')], [405, 'POST']);
  });

  test('streams tokens as they are due, the head before the first', async () => {
    const headers = { 'x-sim-time-to-first-token-ms': '150', 'x-sim-inter-token-ms': '40' };
    const startedAt = performance.now();
    const response = await post(url, { messages, max_tokens: 4, stream: true }, { headers });
    const headMs = performance.now() - startedAt;
    const times: number[] = [];
    for await (const chunk of response.body ?? []) if (chunk.length > 0) times.push(performance.now() - startedAt);
    assert.ok(headMs < (times[0] ?? 0));
    assert.ok((times[0] ?? 0) >= 149);
    assert.ok((times.at(-1) ?? 0) >= 149 + 3 * 40);
  });

  test('fails on demand, with what a client should do', async () => {
    const headers = { 'x-sim-status': '429', 'x-sim-retry-after': '2', 'x-sim-retry-after-ms': '2100' };
    const response = await post(url, { messages }, { headers });
    assert.equal(response.status, 429);
    assert.equal(response.headers.get('retry-after'), '2');
    assert.equal(response.headers.get('retry-after-ms'), '2100');
    assert.equal((await json(response)).error.type, 'RateLimitError');
    assert.equal((await post(url, { messages }, { headers: { ...headers, 'x-sim-only': 'another' } })).status, 200);
  });

  test('breaks off before the head, in a stream and in a unary answer', async () => {
    const stream = { messages, stream: true };
    await assert.rejects(post(url, stream, { headers: { 'x-sim-cut-after': '-1' } }));
    await assert.rejects(post(url, { messages }, { headers: { 'x-sim-cut-after': '-1', 'x-sim-reset': 'true' } }));
    const inStream = await post(url, stream, { headers: { 'x-sim-cut-after': '3' } });
    const received: string[] = [];
    await assert.rejects(async () => {
      for await (const chunk of inStream.body ?? []) received.push(Buffer.from(chunk).toString());
    });
    assert.equal(received.join('').split('"content":"').length - 1, 4);
    const inBody = await post(url, { messages }, { headers: { 'x-sim-cut-after': '20' } });
    await assert.rejects(inBody.text());
  });

  test('tells an error in the stream as vLLM: an event, and then [DONE]', async () => {
    const response = await post(url, { messages, stream: true }, { headers: { 'x-sim-error-after': '2' } });
    const events = (await response.text()).trimEnd().split('\n\n');
    assert.match(events.at(-2) ?? '', /^data: {"error":{.*"code":500}}$/);
    assert.equal(events.at(-1), 'data: [DONE]');
    assert.equal(events.length, 5);
  });

  test('a client that leaves frees its slot or place at once, wherever it stalls', async () => {
    for (const stall of ['headers', 'prefill', 'stream']) {
      const leave = new AbortController();
      const { abandoned, requests } = await state(url);
      const body = { messages, stream: stall === 'stream' };
      const gone = post(url, body, { headers: { 'x-sim-stall': stall }, signal: leave.signal })
        .then((response) => response.text())
        .catch(() => 'gone');
      await until(async () => (await state(url)).requests === requests + 1);
      if (stall !== 'headers') await until(async () => (await state(url)).running === 1);
      leave.abort();
      assert.equal(await gone, 'gone');
      await until(async () => (await state(url)).abandoned === abandoned + 1);
      const { running, waiting } = await state(url);
      assert.deepEqual([running, waiting], [0, 0]);
    }
  });

  test('two are computed, one waits, the next is refused; the waiting one follows', async () => {
    const leave = new AbortController();
    const stalled = { headers: { 'x-sim-stall': 'prefill' }, signal: leave.signal };
    const pair = [post(url, { messages }, stalled), post(url, { messages }, stalled)];
    await until(async () => (await state(url)).running === 2);
    const third = post(url, { messages });
    await until(async () => (await state(url)).waiting === 1);
    const metrics = await readMetrics(`${url}/metrics`);
    assert.equal(metrics.value('vllm:num_requests_running'), 2);
    assert.equal(metrics.value('vllm:num_requests_waiting', { model_name: 'a' }), 1);
    for (const stream of [true, false]) assert.equal((await post(url, { messages, stream })).status, 503);
    leave.abort();
    await Promise.allSettled(pair);
    assert.equal((await third).status, 200);
    assert.equal((await state(url)).running, 0);
  });

  test('a half-closed client counts as gone', async () => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    const body = JSON.stringify({ messages });
    socket.end(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nX-Sim-Stall: prefill\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await once(socket, 'close');
    await until(async () => (await state(url)).running === 0);
  });

  test('its health is what it was told to be', async () => {
    const set = (status: number) => fetch(`${url}/simulator/health?status=${status}`, { method: 'POST' });
    await set(503);
    assert.equal((await fetch(`${url}/health`)).status, 503);
    await set(0);
    await assert.rejects(fetch(`${url}/health`, { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
    await set(200);
    assert.equal((await fetch(`${url}/health`)).status, 200);
    assert.equal((await set(7)).status, 400);
  });
});

test('failures by rate are the same ones for the same seed', async () => {
  const statuses = async () => {
    await using engine = await startService('engine-simulator', [
      ...quick,
      '--error-rate',
      '0.3',
      '--error-status',
      '503',
      '--seed',
      '5',
    ]);
    const seen: number[] = [];
    for (let index = 0; index < 100; index += 1) {
      const response = await post(engine.url, { messages, max_tokens: 1 });
      await response.arrayBuffer();
      seen.push(response.status);
    }
    return seen;
  };
  const [first, second] = await Promise.all([statuses(), statuses()]);
  assert.deepEqual(first, second);
  const failed = first.filter((status) => status === 503).length;
  assert.ok(failed > 15 && failed < 45, `${failed} failed`);
  assert.equal(first.filter((status) => status === 200).length, 100 - failed);
});

test('ranks have ports in a row, slots and health of their own', async () => {
  const port = await freeRange(3);
  await using engine = await startService('engine-simulator', [
    ...quick,
    '--port',
    String(port),
    '--dp-size',
    '3',
    '--name',
    'e',
  ]);
  assert.deepEqual(Object.keys(engine.addresses).toSorted(), ['admin', 'http', 'http-1', 'http-2']);
  await fetch(`http://127.0.0.1:${port + 1}/simulator/health?status=503`, { method: 'POST' });
  const healths = await Promise.all(
    [0, 1, 2].map(async (rank) => (await fetch(`http://127.0.0.1:${port + rank}/health`)).status),
  );
  assert.deepEqual(healths, [200, 503, 200]);
  const response = await post(`http://127.0.0.1:${port + 2}`, { messages });
  assert.equal(response.headers.get('x-sim-engine'), 'e-2');
});

async function freeRange(count: number): Promise<number> {
  for (;;) {
    const port = await freePort();
    const server = await Promise.allSettled(
      Array.from({ length: count }, (_, index) => fetch(`http://127.0.0.1:${port + index}`)),
    );
    if (server.every((result) => result.status === 'rejected')) return port;
  }
}

test('requests can be looked at, the last ones', async () => {
  await using engine = await startService('engine-simulator', [...quick, '--record-requests', '2']);
  for (const content of ['one', 'two', 'three']) await post(engine.url, { messages: [{ role: 'user', content }] });
  const recorded = await json(await fetch(`${engine.url}/simulator/requests`));
  assert.deepEqual(
    recorded.map(({ body }: { body: string }) => JSON.parse(body).messages[0].content),
    ['two', 'three'],
  );
  assert.equal(recorded[0].path, '/v1/chat/completions');
});

test('totals are what the answers say they cost, by model; what was given up counts apart', async () => {
  await using engine = await startService('engine-simulator', [...quick, '--model', 'a,b']);
  const { url } = engine;
  const usage = async (response: Promise<Response>) => (await json(await response)).usage;
  const chats = [
    await usage(post(url, { messages, n: 3, model: 'a' })),
    await usage(post(url, { messages, model: 'a' })),
  ];
  const embeddings = await usage(post(url, { input: ['x', 'yy'], model: 'a' }, { path: '/v1/embeddings' }));
  const message = await usage(post(url, { messages, model: 'b', max_tokens: 5 }, { path: '/v1/messages' }));
  const response = await usage(post(url, { input: 'hello', model: 'b' }, { path: '/v1/responses' }));
  const cut = post(url, { messages, model: 'b', stream: true }, { headers: { 'x-sim-cut-after': '3' } });
  await assert.rejects(cut.then((answer) => answer.text()));
  assert.equal((await post(url, { messages, model: 'b' }, { headers: { 'x-sim-status': '500' } })).status, 500);

  const promptTokens = chats[0].prompt_tokens;
  const totals = (await json(await fetch(`${url}/simulator/state`))).totals;
  const sum = (numbers: number[]) => numbers.reduce((before, number) => before + number, 0);
  const none = { requests: 0, promptTokens: 0, completionTokens: 0, cachedTokens: 0 };
  assert.deepEqual(totals, [
    {
      model: 'a',
      part: 'neutral',
      finished: {
        requests: 3,
        promptTokens: sum([...chats, embeddings].map(({ prompt_tokens: tokens }) => tokens)),
        completionTokens: sum(chats.map(({ completion_tokens: tokens }) => tokens)),
        cachedTokens: 0,
      },
      unfinished: none,
    },
    {
      model: 'b',
      part: 'neutral',
      finished: {
        requests: 2,
        promptTokens: message.input_tokens + response.input_tokens,
        completionTokens: message.output_tokens + response.output_tokens,
        cachedTokens: 0,
      },
      unfinished: { requests: 2, promptTokens, completionTokens: 3, cachedTokens: 0 },
    },
  ]);
  const metrics = await readMetrics(`${url}/metrics`);
  for (const { model, finished } of totals) {
    assert.equal(metrics.value('vllm:prompt_tokens_total', { model_name: model }), finished.promptTokens);
    assert.equal(metrics.value('vllm:generation_tokens_total', { model_name: model }), finished.completionTokens);
  }
});

test('SIGTERM lets a stream finish', async () => {
  await using engine = await startService('engine-simulator', [...quick, '--inter-token-ms', '20']);
  const response = await post(engine.url, { messages, stream: true, max_tokens: 20 });
  void engine.kill('SIGTERM');
  assert.ok((await response.text()).endsWith('data: [DONE]\n\n'));
  assert.deepEqual(await engine.exited, { code: 0, signal: null });
});

test('flags that cannot be are refused', async () => {
  const wrong: [string[], RegExp][] = [
    [['--model', ' , '], /--model/],
    [['--dp-size', '2'], /--port/],
    [['--kv-connector', 'other'], /--kv-connector/],
    [['--port', '60000', '--kv-connector', 'vllm-kvt'], /--kv-port/],
  ];
  for (const [flags, message] of wrong) {
    await using engine = await startService('engine-simulator', flags, { until: 'spawned' });
    assert.equal((await engine.exited).code, 64);
    assert.match(engine.output(), message);
  }
});
