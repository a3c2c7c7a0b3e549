import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readGeneration } from './generation.ts';
import { stringifyExact } from './json.ts';
import { type Connector, type KvRole, kvPlan, mooncakeAnswer } from './kv-protocol.ts';
import { Transfers } from './transfers.ts';

const limits = { models: ['m'], maxModelLen: 1000, responseTokens: 8 };
const prefillForm = { max_tokens: 1, n: 1, stream: false, ignore_eos: true };
const mooncakePrefill = {
  do_remote_decode: true,
  do_remote_prefill: false,
  remote_engine_id: null,
  remote_block_ids: null,
  remote_host: null,
  remote_port: null,
};
const source = { remote_host: '10.0.0.1', remote_port: 28_000 };

function plan(
  connector: Connector,
  params: unknown,
  options: { body?: object; role?: KvRole; requestId?: string } = {},
) {
  const { body = prefillForm, role = 'kv_both', requestId = 'r' } = options;
  const text = stringifyExact({ prompt: 'x', ...body, kv_transfer_params: params });
  return kvPlan(readGeneration('completion', text, limits), { connector, role, requestId });
}

test('each form of both protocols is understood', () => {
  assert.deepEqual(plan('vllm-mooncake', mooncakePrefill), { part: 'prefill', key: undefined });
  assert.deepEqual(plan('vllm-kvt', { do_remote_decode: true }), { part: 'prefill', key: 'cmpl-r-0' });
  const decode = { part: 'decode', host: '10.0.0.1', port: 28_000, key: 'cmpl-r-0' };
  assert.deepEqual(plan('vllm-kvt', { do_remote_prefill: true, ...source }), { ...decode, how: 'claim' });
  assert.deepEqual(plan('vllm-kvt', source), { ...decode, how: 'prefill' });
  const answer = mooncakeAnswer({ engineId: 'e', requestId: 'q', firstBlock: 2n ** 60n + 1n, host: 'h', port: 1 });
  const mooncake = plan('vllm-mooncake', answer);
  assert.equal(mooncake.part === 'decode' && mooncake.key, stringifyExact(answer));
  assert.equal(plan('vllm-mooncake', undefined).part, 'neutral');
  assert.equal(plan('', { anything: 1 }).part, 'neutral');
});

test('anything else is refused', () => {
  const wrong: [Connector, unknown][] = [
    ['vllm-mooncake', { ...mooncakePrefill, remote_port: 1 }],
    ['vllm-mooncake', { do_remote_decode: true }],
    ['vllm-mooncake', { ...mooncakePrefill, extra: 1 }],
    ['vllm-mooncake', source],
    ['vllm-mooncake', 7],
    ['vllm-kvt', {}],
    ['vllm-kvt', { do_remote_decode: false }],
    ['vllm-kvt', { do_remote_decode: true, ...source }],
    ['vllm-kvt', { do_remote_prefill: true }],
    ['vllm-kvt', { ...source, remote_port: '28000' }],
    ['vllm-kvt', { ...source, remote_host: '' }],
  ];
  for (const [connector, params] of wrong) {
    assert.throws(() => plan(connector, params), { name: 'Refusal', status: 400 }, JSON.stringify(params));
  }
});

test('a prefill must be one: a single token of a single, unstreamed choice', () => {
  const params = { do_remote_decode: true };
  for (const body of [
    { max_tokens: 2 },
    { ...prefillForm, n: 2 },
    { ...prefillForm, stream: true },
    { ...prefillForm, stop: 'x' },
    { ...prefillForm, ignore_eos: false },
    {},
  ]) {
    assert.throws(() => plan('vllm-kvt', params, { body }), { status: 400, message: /not a prefill/ });
  }
  assert.equal(plan('vllm-kvt', params, { body: { ...prefillForm, min_tokens: 1 } }).part, 'prefill');
});

test('an engine of one role refuses the other half', () => {
  assert.throws(() => plan('vllm-kvt', source, { role: 'kv_producer' }), /only prefills/);
  assert.throws(() => plan('vllm-kvt', undefined, { role: 'kv_producer' }), /only prefills/);
  assert.throws(() => plan('vllm-kvt', { do_remote_decode: true }, { role: 'kv_consumer' }), /does not prefill/);
  assert.throws(() => plan('vllm-kvt', undefined, { role: 'kv_consumer' }), {
    status: 400,
    message: /no prefill is named/,
  });
  assert.equal(plan('vllm-kvt', undefined).part, 'neutral');
  for (const body of [{ prompt: ['a', 'b'] }, { n: 2 }, { best_of: 2 }, { use_beam_search: true }]) {
    assert.equal(plan('vllm-kvt', undefined, { body, role: 'kv_consumer' }).part, 'neutral');
    assert.throws(() => plan('vllm-kvt', source, { body }), { status: 400, message: /no common KV cache/ });
  }
  assert.equal(plan('vllm-mooncake', undefined, { role: 'kv_consumer' }).part, 'neutral');
  assert.throws(() => plan('vllm-kvt', source, { requestId: '' }), /x-request-id/);
});

test('a prefill can be claimed once, for its own prompt, and not for ever', () => {
  const transfers = new Transfers();
  transfers.offer('a', 1, 0);
  assert.match(transfers.claim('b', 1) ?? '', /no prefill waits/);
  assert.match(transfers.claim('a', 2) ?? '', /another prompt/);
  assert.equal(transfers.claim('a', 1), undefined);
  assert.match(transfers.claim('a', 1) ?? '', /no prefill waits/);
  transfers.offer('old', 1, 0);
  transfers.offer('new', 1, 500_000);
  assert.match(transfers.claim('old', 1) ?? '', /no prefill waits/);
  assert.equal(transfers.size, 1);
});
