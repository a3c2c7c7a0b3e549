import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readMetrics, type Service, startRedis, startService, temporaryFolder, until } from '@llm-gateway/testing';
import { type Gateway, post, startGateway } from './gateway.ts';
import { ask, usageRecords } from './jetstream.ts';
import { startPdGateway } from './pd.ts';

/** Of each deployment. A long run: `USAGE_REQUESTS=5000`. */
const count = Number(process.env.USAGE_REQUESTS ?? 250);
const clients = 24;
/**
 * Of five requests one is left by its client, and named by its model: what engines did for it is
 * told apart.
 */
const isLeft = (n: number) => n % 5 === 4;
const models = ['whole', 'left'];

const key = 'sk-gw-books';
const hash = `sha256:${createHash('sha256').update(key).digest('hex')}`;
const docs = readFileSync(join(import.meta.dirname, '../../docs/usage.md'), 'utf8');
const [, streamConfig = ''] = /```json usage-stream\.json\n([\s\S]*?)```/.exec(docs) ?? [];
const pace = ['--time-to-first-token-ms', '2', '--inter-token-ms', '1', '--model', models.join()];

const messages = [{ role: 'user', content: 'Tell me of the sea' }];
type Kind = readonly [path: string, body: (n: number) => object];
const completions: readonly Kind[] = [
  ['/v1/chat/completions', (n) => ({ messages, max_tokens: 1 + (n % 30), stream: n % 2 === 0 })],
  ['/v1/completions', (n) => ({ prompt: 'One two three', max_tokens: 2 + (n % 20), stream: n % 3 === 0 })],
];
const others: readonly Kind[] = [
  ['/v1/messages', (n) => ({ messages, max_tokens: 4 + (n % 10), stream: n % 2 === 0 })],
  ['/v1/responses', (n) => ({ input: 'Of the land', max_output_tokens: 16 + (n % 10), stream: n % 2 === 0 })],
];

async function ingressFlags(): Promise<string[]> {
  const keys = join(temporaryFolder(), 'keys.json');
  writeFileSync(keys, JSON.stringify({ keys: [{ name: 'books', hash }] }));
  return [
    ...['--client-keys', `@${keys}`, '--usage-streams', 'continuous', '--usage-records'],
    ...['--retry-max-count', '2', '--decision-timeout-ms', '2000'],
  ];
}

const jetStream = () => ({ config: `jetstream: { store_dir: "${temporaryFolder()}" }` });

/** Sends the requests, and returns what the gateway recorded of those that nobody left. */
async function recorded(gateway: Gateway, kinds: readonly Kind[]) {
  const { port } = gateway.nats;
  const made = await ask(port, '$JS.API.STREAM.CREATE.USAGE', JSON.parse(streamConfig));
  assert.equal(made.error, undefined, JSON.stringify(made));
  let sent = 0;
  const one = async (n: number) => {
    const [path, body] = kinds[n % kinds.length] as Kind;
    const leaving = new AbortController();
    const more = isLeft(n) ? { max_tokens: 500, max_output_tokens: 500, ignore_eos: true, stream: true } : {};
    const text = JSON.stringify({ ...body(n), ...more, model: isLeft(n) ? 'left' : 'whole' });
    const { url } = gateway.ingress[n % gateway.ingress.length] ?? gateway;
    const send = () => post(url, text, { path, headers: { 'x-api-key': key }, signal: leaving.signal });
    const answer = send();
    if (isLeft(n)) {
      // Some in the stream, the others wherever their requests are.
      if (n % 2 === 0) void sleep(n % 40).then(() => leaving.abort());
      await answer
        .then(async (response) => {
          const reader = response.body?.getReader();
          for (let read = 0; read < 3; read++) await reader?.read();
        })
        .catch(() => {});
      leaving.abort();
      return;
    }
    // A connection that was opened for a request that was left may be closed as idle just when it is used.
    const response = await answer.catch(send);
    const all = await response.text();
    assert.equal(response.status, 200, all);
  };
  const client = async () => {
    for (let n = sent++; n < count; n = sent++) await one(n);
  };
  await Promise.all(Array.from({ length: clients }, client));
  const whole = count - Math.floor(count / 5);
  return await until(
    async () => {
      const records = (await usageRecords(port)).flatMap((message) => message.records);
      const exact = records.filter(({ model, quality }) => model === 'whole' && quality === 'exact');
      assert.equal(exact.length, whole);
      return {
        prompt: exact.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
        completion: exact.reduce((sum, { completionTokens }) => sum + completionTokens, 0),
        partial: records.filter(({ quality }) => quality === 'partial').length,
      };
    },
    { timeoutMs: 20_000, intervalMs: 1000 },
  );
}

async function computed(engines: readonly Service[]) {
  const metrics = await Promise.all(engines.map(({ url }) => readMetrics(`${url}/metrics`)));
  const sum = (name: string) => metrics.reduce((all, one) => all + one.value(name, { model_name: 'whole' }), 0);
  return { prompt: sum('vllm:prompt_tokens_total'), completion: sum('vllm:generation_tokens_total') };
}

describe('the exact records of requests', { timeout: 900_000 }, () => {
  it('have the tokens of the engines, among retries, fallbacks and clients that leave', async (test) => {
    await using stack = new AsyncDisposableStack();
    const engine = async (flags: readonly string[] = []) =>
      stack.use(await startService('engine-simulator', [...pace, ...flags]));
    const failing = ['--error-rate', '0.3'];
    const [one, other, fallback] = await Promise.all([engine(failing), engine(failing), engine()]);
    const routes = [
      { prefix: '*', base_url: 'local', weight: 1, fallback: false },
      { prefix: '*', base_url: `${fallback.url}/v1`, fallback: true },
    ];
    const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
    const gateway = stack.use(
      await startGateway({
        nats: jetStream(),
        replicas: { ingress: 2 },
        flags: {
          discovery: [
            ...['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints'],
            [one, other].map(({ url }) => new URL(url).host).join(),
          ],
          router: routing,
          ingress: [...(await ingressFlags()), ...routing],
        },
      }),
    );
    const { partial, ...sums } = await recorded(gateway, [...completions, ...others]);
    assert.deepEqual(sums, await computed([one, other, fallback]));
    assert.ok(partial > 0);
    const metrics = await Promise.all(gateway.ingress.map((ingress) => ingress.metrics()));
    const total = (name: string) => metrics.reduce((sum, { value }) => sum + value(name), 0);
    const [retries, fallbacks] = [total('llm_gateway_retries_total'), total('llm_gateway_fallbacks_total')];
    assert.ok(retries > 0);
    assert.ok(fallbacks > 0);
    test.diagnostic(JSON.stringify({ requests: count, ...sums, partial, retries, fallbacks }));
  });

  it('have the tokens of the decode engines where requests are split', async (test) => {
    await using stack = new AsyncDisposableStack();
    const { port } = stack.use(await startRedis());
    const store = [
      ...['--llm-backend-discovery', 'redis', '--discovery-redis-host', '127.0.0.1'],
      ...['--discovery-redis-port', String(port)],
    ];
    const [prefill, decode] = await Promise.all(
      ['kv_producer', 'kv_consumer'].map(async (role) =>
        stack.use(await startService('engine-simulator', [...pace, '--kv-connector', 'vllm-kvt', '--kv-role', role])),
      ),
    );
    for (const [type, engine] of Object.entries({ prefill, decode })) {
      const kv = new URL(engine?.addresses.kv ?? '');
      stack.use(
        await startService('registrar', [
          ...['--pod-name', `pod-${type}`, '--instance-type', type, '--entrypoint-ip', '127.0.0.1'],
          ...['--entrypoint-port', new URL(engine?.url ?? '').port],
          ...['--kv-transfer-ip', kv.hostname, '--kv-transfer-port', kv.port, ...store],
        ]),
      );
    }
    const gateway = stack.use(
      await startPdGateway(
        { protocol: 'vllm-kvt', staged: true },
        { nats: jetStream(), flags: { discovery: store, ingress: await ingressFlags() } },
      ),
    );
    const { partial, ...sums } = await recorded(gateway, completions);
    assert.ok(decode);
    assert.deepEqual(sums, await computed([decode]));
    assert.ok(partial > 0);
    test.diagnostic(JSON.stringify({ requests: count, ...sums, partial }));
  });
});
