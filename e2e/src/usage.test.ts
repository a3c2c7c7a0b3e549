import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readMetrics, type Service, startService, temporaryFolder, until } from '@llm-gateway/testing';
import { type Gateway, post, startGateway } from './gateway.ts';
import { ask, usageRecords } from './jetstream.ts';

const docs = readFileSync(join(import.meta.dirname, '../../docs/usage.md'), 'utf8');
const [, streamConfig = ''] = /```json usage-stream\.json\n([\s\S]*?)```/.exec(docs) ?? [];

describe('usage', { timeout: 120_000 }, () => {
  const key = 'sk-gw-usage';
  const hashOf = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;
  const hash = hashOf(key);
  let simulator: Service;
  let gateway: Gateway;
  before(async () => {
    const keys = join(temporaryFolder(), 'keys.json');
    writeFileSync(
      keys,
      JSON.stringify({
        keys: [
          { name: 'team-u', hash },
          { name: 'team-t', hash: hashOf('sk-gw-tokens'), tpm: 3000 },
        ],
      }),
    );
    simulator = await startService('engine-simulator', ['--time-to-first-token-ms', '1', '--inter-token-ms', '1']);
    const { host } = new URL(simulator.url);
    gateway = await startGateway({
      with: ['limiter'],
      nats: { config: `jetstream: { store_dir: "${temporaryFolder()}" }` },
      flags: {
        discovery: ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', host],
        ingress: [
          '--client-keys',
          `@${keys}`,
          '--usage-streams',
          'continuous',
          '--usage-records',
          '--quota-timeout-ms',
          '2000',
        ],
        limiter: ['--quota-recount-timeout-ms', '1000'],
      },
    });
    const made = await ask(gateway.nats.port, '$JS.API.STREAM.CREATE.USAGE', JSON.parse(streamConfig));
    assert.equal(made.error, undefined, JSON.stringify(made));
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await simulator[Symbol.asyncDispose]();
  });

  const send = (path: string, body: object, signal?: AbortSignal) =>
    post(gateway.url, JSON.stringify({ model: 'simulated', ...body }), {
      path,
      headers: { 'x-api-key': key },
      ...(signal && { signal }),
    });
  const messages = [{ role: 'user', content: 'Tell me of the sea' }];
  const records = () => usageRecords(gateway.nats.port);

  it('is the same at the engine, in the records and in the metrics, to the token, for every API', async () => {
    const kinds: [path: string, body: (n: number) => object][] = [
      ['/v1/chat/completions', (n) => ({ messages, max_tokens: 3 + n })],
      ['/v1/chat/completions', (n) => ({ messages, max_tokens: 3 + n, stream: true })],
      [
        '/v1/chat/completions',
        (n) => ({ messages, max_tokens: 3 + n, stream: true, stream_options: { include_usage: true } }),
      ],
      ['/v1/completions', (n) => ({ prompt: 'One two three', max_tokens: 2 + n, stream: n % 2 === 0 })],
      ['/v1/messages', (n) => ({ messages, max_tokens: 4 + n, stream: n % 2 === 0 })],
      ['/v1/responses', (n) => ({ input: 'Of the land', max_output_tokens: 16 + n, stream: n % 2 === 0 })],
    ];
    const texts = await Promise.all(
      kinds.flatMap(([path, body]) =>
        Array.from({ length: 10 }, async (_, n) => {
          const response = await send(path, body(n));
          const text = await response.text();
          assert.equal(response.status, 200, text);
          return { path, asked: body(n), text };
        }),
      ),
    );
    for (const { asked, text } of texts) {
      if (!('stream' in asked) || asked.stream !== true || !('messages' in asked || 'prompt' in asked)) continue;
      const isWithheld = !('stream_options' in asked);
      if (isWithheld) assert.doesNotMatch(text, /"choices":\[\]/);
      else assert.match(text, /"choices":\[\],"usage":\{/);
    }
    const count = texts.length;
    await until(async () => (await records()).flatMap((message) => message.records).length === count);
    const all = (await records()).flatMap((message) => message.records);
    assert.deepEqual([...new Set(all.map(({ quality }) => quality))], ['exact']);
    assert.deepEqual([...new Set(all.map(({ client }) => client))], ['team-u']);
    const sum = (member: 'promptTokens' | 'completionTokens') => all.reduce((total, one) => total + one[member], 0);
    const engine = await readMetrics(`${simulator.url}/metrics`);
    assert.equal(sum('promptTokens'), engine.value('vllm:prompt_tokens_total'));
    assert.equal(sum('completionTokens'), engine.value('vllm:generation_tokens_total'));
    const metrics = await gateway.ingress[0]?.metrics();
    for (const name of ['llm_gateway_tokens_total', 'llm_gateway_client_tokens_total']) {
      assert.equal(metrics?.value(name, { kind: 'prompt' }), sum('promptTokens'));
      assert.equal(metrics?.value(name, { kind: 'completion' }), sum('completionTokens'));
    }
    assert.equal(metrics?.value('llm_gateway_usage_records_total', { result: 'published' }), count);
    const line = gateway.ingress[0]?.logs().find(({ msg }) => msg === 'request');
    assert.equal(line?.client, 'team-u');
    assert.equal(line?.usage, 'exact');
    assert.ok(!gateway.ingress[0]?.output().includes(key));
  });

  it('of a stream that its client leaves is what had passed, and numbers have no gap', async () => {
    const before = (await records()).flatMap((message) => message.records).length;
    const leaving = new AbortController();
    const response = await send(
      '/v1/chat/completions',
      { messages, max_tokens: 10_000, ignore_eos: true, stream: true },
      leaving.signal,
    );
    const reader = response.body?.getReader();
    for (let n = 0; n < 20; n++) await reader?.read();
    leaving.abort();
    await until(async () => (await records()).flatMap((message) => message.records).length > before);
    const received = await records();
    const last = received.at(-1)?.records.at(-1);
    assert.equal(last?.quality, 'partial');
    assert.ok(last.completionTokens >= 10 && last.completionTokens < 10_000, String(last.completionTokens));
    let next = 0;
    for (const { sequence, records: some } of received) {
      assert.equal(sequence, next);
      next += some.length;
    }
  });

  it('is what a limit in tokens is held to: the engine computes no more, and nearly all of it', async () => {
    const taken = async () => {
      const engine = await readMetrics(`${simulator.url}/metrics`);
      return engine.value('vllm:prompt_tokens_total') + engine.value('vllm:generation_tokens_total');
    };
    await until(async () => (await gateway.ingress[0]?.metrics())?.value('llm_gateway_quota_degraded') === 0);
    const before = await taken();
    const one = async (n: number) => {
      const body = { model: 'simulated', messages, max_tokens: 40, stream: n % 2 === 0 };
      const headers = { 'x-api-key': 'sk-gw-tokens' };
      const response = await post(gateway.url, JSON.stringify(body), { headers });
      await response.arrayBuffer();
      return response;
    };
    for (let n = 0; n < 60; n++) await Promise.all([one(2 * n), one(2 * n + 1)]);
    const used = (await taken()) - before;
    assert.ok(used <= 3000 && used >= 2700, `${used} tokens`);
    const { status, headers } = await one(0);
    assert.equal(status, 429);
    assert.equal(headers.get('x-ratelimit-limit-tokens'), '3000');
    assert.ok(Number(headers.get('x-ratelimit-remaining-tokens')) < 100);
    assert.ok(Number(headers.get('retry-after')) > 30);
  });

  it('that the bus did not take is counted, and leaves a gap', async () => {
    await gateway.nats.kill('SIGKILL');
    const dropped = async () =>
      (await gateway.ingress[0]?.metrics())?.value('llm_gateway_usage_records_total', { result: 'dropped' });
    assert.equal((await send('/v1/chat/completions', { messages, max_tokens: 2 })).status, 200);
    await until(async () => ((await dropped()) ?? 0) >= 1);
  });
});
