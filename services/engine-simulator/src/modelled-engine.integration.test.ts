import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { readMetrics, type Service, startService, until } from '@llm-gateway/testing';

const long = 'word '.repeat(2000);
const messages = [{ role: 'user', content: long }];
/** `long` has 3,334 tokens, 4 around it: six full blocks. */
const cached = 6 * 512;

const post = (url: string, path: string, body: object, more: RequestInit = {}) =>
  fetch(url + path, { method: 'POST', body: JSON.stringify(body), ...more });

const json = async (response: Promise<Response>) => JSON.parse(await (await response).text());

const state = (url: string) => json(fetch(`${url}/simulator/state`));

const modelled = ['--prefill-tokens-per-s', '20000', '--inter-token-ms', '1', '--drain-delay-ms', '0'];

describe('a modelled engine', () => {
  let engine: Service;
  let url: string;
  before(async () => {
    engine = await startService('engine-simulator', [
      ...modelled,
      ...['--kv-blocks', '16', '--max-model-len', '8192', '--max-concurrency', '2', '--queue-limit', '1'],
    ]);
    url = engine.url;
  });
  after(() => engine[Symbol.asyncDispose]());

  test('a prompt that came before takes its time once, is cached then, and every API says so', async () => {
    const timed = async () => {
      const startedAt = performance.now();
      const { usage } = await json(post(url, '/v1/chat/completions', { messages, max_tokens: 1 }));
      return { usage, ms: performance.now() - startedAt };
    };
    const first = await timed();
    assert.deepEqual(first.usage.prompt_tokens_details, { cached_tokens: 0 });
    assert.ok(first.ms >= 3338 / 20 - 1, `${first.ms} ms`);
    const second = await timed();
    assert.deepEqual(second.usage.prompt_tokens_details, { cached_tokens: cached });
    const stream_options = { include_usage: true };
    const stream = await post(url, '/v1/chat/completions', { messages, max_tokens: 2, stream: true, stream_options });
    assert.match(await stream.text(), new RegExp(`"cached_tokens":${cached}}}`));

    const message = await json(post(url, '/v1/messages', { messages, max_tokens: 1 }));
    const { input_tokens, cache_read_input_tokens } = message.usage;
    assert.deepEqual([cache_read_input_tokens, input_tokens + cached], [cached, first.usage.prompt_tokens]);
    const response = await json(post(url, '/v1/responses', { input: long, max_output_tokens: 1 }));
    assert.equal(response.usage.input_tokens_details.cached_tokens, cached);
    const salted = await json(post(url, '/v1/chat/completions', { messages, max_tokens: 1, cache_salt: 'x' }));
    assert.deepEqual(salted.usage.prompt_tokens_details, { cached_tokens: 0 });

    const metrics = await readMetrics(`${url}/metrics`);
    assert.equal(metrics.value('vllm:prefix_cache_hits_total'), 4 * cached);
    assert.equal(metrics.value('vllm:prefix_cache_queries_total'), 6 * first.usage.prompt_tokens);
    assert.equal(metrics.value('vllm:cache_config_info', { num_gpu_blocks: '16', block_size: '512' }), 1);
    assert.equal(metrics.value('vllm:kv_cache_usage_perc'), 0);
    assert.equal((await state(url)).totals[0].finished.cachedTokens, 4 * cached);
  });

  test('when memory is full, requests lose their place and end nevertheless', async () => {
    const before = (await state(url)).preemptions;
    const ask = (content: string) => {
      const body = { messages: [{ role: 'user', content: content.repeat(2000) }], max_tokens: 1300, ignore_eos: true };
      return json(post(url, '/v1/chat/completions', body));
    };
    // Seven blocks for each prompt, ten with its answer: four too many.
    const answers = await Promise.all([ask('here '), ask('there')]);
    for (const { usage } of answers) assert.equal(usage.completion_tokens, 1300);
    assert.ok((await state(url)).preemptions > before);
    assert.ok(((await readMetrics(`${url}/metrics`)).value('vllm:num_preemptions_total') ?? 0) > before);
  });

  test('a client that leaves frees its place and its memory, wherever it is', async () => {
    const leave = new AbortController();
    const headers = { 'x-sim-stall': 'prefill' };
    const ask = () => post(url, '/v1/chat/completions', { messages }, { headers, signal: leave.signal });
    const stalled = [ask(), ask()];
    await until(async () => (await state(url)).running === 2);
    assert.ok((await state(url)).kvUsage > 0);
    const waiting = post(url, '/v1/chat/completions', { messages }, { signal: leave.signal });
    await until(async () => (await state(url)).waiting === 1);
    for (const stream of [true, false]) {
      assert.equal((await post(url, '/v1/chat/completions', { messages, stream })).status, 503);
    }
    leave.abort();
    await Promise.allSettled([...stalled, waiting]);
    await until(async () => (await state(url)).running === 0);
    const { running, waiting: left, kvUsage } = await state(url);
    assert.deepEqual([running, left, kvUsage], [0, 0, 0]);
  });

  test('what cannot be is refused: more than all memory, and times of a request alone', async () => {
    const prompt = Array.from({ length: 20 }, () => long);
    assert.equal((await post(url, '/v1/completions', { prompt })).status, 400);
    const headers = { 'x-sim-inter-token-ms': '5' };
    assert.equal((await post(url, '/v1/chat/completions', { messages }, { headers })).status, 400);
  });

  test('a stream can still be cut, stalled and failed', async () => {
    const ask = (headers: Record<string, string>) =>
      post(url, '/v1/chat/completions', { messages, stream: true }, { headers });
    await assert.rejects(ask({ 'x-sim-cut-after': '3' }).then((response) => response.text()));
    assert.match(await (await ask({ 'x-sim-error-after': '2' })).text(), /"code":500/);
    await until(async () => (await state(url)).running === 0);
  });
});

test('a prompt for a decode engine is computed at the speed of its prefill engine, and cached there', async () => {
  const flags = [...modelled, '--kv-blocks', '16', '--max-model-len', '8192', '--kv-connector', 'vllm-kvt'];
  await using prefill = await startService('engine-simulator', [...flags, '--kv-role', 'kv_producer']);
  await using decode = await startService('engine-simulator', [...flags, '--kv-role', 'kv_consumer']);
  const { hostname, port } = new URL(prefill.addresses.kv ?? '');
  const body = { messages, kv_transfer_params: { remote_host: hostname, remote_port: Number(port) }, max_tokens: 2 };
  const ask = async (id: string) => {
    const startedAt = performance.now();
    await json(post(decode.url, '/v1/chat/completions', body, { headers: { 'x-request-id': id } }));
    return performance.now() - startedAt;
  };
  const firstMs = await ask('1');
  assert.ok(firstMs >= 3338 / 20 - 1, `${firstMs} ms`);
  await ask('2');
  assert.equal((await state(prefill.url)).hitTokens, cached);
});

test('metrics have the names of SGLang when wanted', async () => {
  await using engine = await startService('engine-simulator', [
    ...[...modelled, '--kv-blocks', '16', '--max-model-len', '8192', '--metrics-of', 'sglang'],
  ]);
  for (let time = 0; time < 2; time += 1) {
    await json(post(engine.url, '/v1/chat/completions', { messages, max_tokens: 1 }));
  }
  const metrics = await readMetrics(`${engine.url}/metrics`);
  assert.equal(metrics.value('sglang:max_total_num_tokens'), 8192);
  assert.equal(metrics.value('sglang:cached_tokens_total'), cached);
  assert.equal(metrics.value('sglang:num_running_reqs'), 0);
});

test('flags of the model without the model, or without room for one prompt, are refused', async () => {
  for (const flags of [
    ['--kv-blocks', '16'],
    [...modelled, '--kv-blocks', '16'],
  ]) {
    await using engine = await startService('engine-simulator', flags, { until: 'spawned' });
    assert.equal((await engine.exited).code, 64);
    assert.match(engine.output(), /--kv-blocks/);
  }
});
