import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Service, startService, until } from '@llm-gateway/testing';

const quick = ['--time-to-first-token-ms', '0', '--inter-token-ms', '0'];
const messages = [{ role: 'user', content: 'hello' }];
const prefillForm = { max_tokens: 1, n: 1, stream: false, ignore_eos: true };

interface Call {
  readonly path?: string;
  readonly requestId: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

async function call(
  engine: Service,
  body: object | string,
  { path = '/v1/chat/completions', requestId, headers = {}, signal }: Call,
) {
  const response = await fetch(engine.url + path, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers: { 'x-request-id': requestId, ...headers },
    ...(signal && { signal }),
  });
  return { status: response.status, text: await response.text() };
}

async function state(engine: Service) {
  const response = await fetch(`${engine.url}/simulator/state`);
  return (await response.json()) as { running: number; transfers: number; abandoned: number; requests: number };
}

function sourceOf(engine: Service) {
  const { hostname, port } = new URL(engine.addresses.kv ?? '');
  return { remote_host: hostname, remote_port: Number(port) };
}

async function startPair(connector: string): Promise<{ prefill: Service; decode: Service }> {
  const start = (role: string) =>
    startService('engine-simulator', [...quick, '--kv-connector', connector, '--kv-role', role]);
  const [prefill, decode] = await Promise.all([start('kv_producer'), start('kv_consumer')]);
  return { prefill, decode };
}

describe('vllm-mooncake', () => {
  let prefill: Service;
  let decode: Service;
  before(async () => {
    ({ prefill, decode } = await startPair('vllm-mooncake'));
  });
  after(async () => {
    await prefill[Symbol.asyncDispose]();
    await decode[Symbol.asyncDispose]();
  });

  const params = {
    do_remote_decode: true,
    do_remote_prefill: false,
    remote_engine_id: null,
    remote_block_ids: null,
    remote_host: null,
    remote_port: null,
  };
  const prefillCall = { messages, ...prefillForm, kv_transfer_params: params };
  /** As raw JSON, the way a gateway has to carry it. */
  const answeredParams = (text: string) => /"kv_transfer_params":(\{[^}]*\})/.exec(text)?.[1] ?? '';
  const decodeCall = (raw: string, said = messages) =>
    `{"messages":${JSON.stringify(said)},"stream":true,"kv_transfer_params":${raw}}`;

  test('a decode goes on from a prefill that happened, once', async () => {
    const prefilled = await call(prefill, prefillCall, { requestId: 'm1' });
    assert.equal(prefilled.status, 200);
    const raw = answeredParams(prefilled.text);
    const [block = ''] = /\d{16,}/.exec(raw) ?? [];
    assert.notEqual(String(Number(block)), block, 'the block ids do not survive a double');
    assert.equal((await state(prefill)).transfers, 1);

    const decoded = await call(decode, decodeCall(raw), { requestId: 'm1' });
    assert.equal(decoded.status, 200);
    assert.ok(decoded.text.endsWith('data: [DONE]\n\n'));
    assert.equal((await state(prefill)).transfers, 0);
    assert.equal((await call(decode, decodeCall(raw), { requestId: 'm1' })).status, 400);
  });

  test('params that were changed on their way, or of another prompt, are refused', async () => {
    const raw = answeredParams((await call(prefill, prefillCall, { requestId: 'm2' })).text);
    const rounded = JSON.stringify(JSON.parse(raw));
    assert.equal((await call(decode, decodeCall(rounded), { requestId: 'm2' })).status, 400);
    const other = [{ role: 'user', content: 'another' }];
    const ofOther = await call(decode, decodeCall(raw, other), { requestId: 'm2' });
    assert.equal(ofOther.status, 400);
    assert.match(ofOther.text, /another prompt/);
    assert.equal((await call(decode, decodeCall(raw), { requestId: 'm2' })).status, 200);
  });

  test('a prefill answer without params is a fault on demand, and a decode without them is served', async () => {
    const headers = { 'x-sim-omit': 'kv_transfer_params', 'x-sim-only': 'prefill' };
    const prefilled = await call(prefill, prefillCall, { requestId: 'm3', headers });
    assert.match(prefilled.text, /"kv_transfer_params":null/);
    assert.equal((await call(decode, { messages }, { requestId: 'm3' })).status, 200);
  });

  test('messages are disaggregated like chats', async () => {
    const path = '/v1/messages';
    const prefilled = await call(prefill, prefillCall, { requestId: 'm6', path });
    assert.equal(prefilled.status, 200);
    const raw = answeredParams(prefilled.text);
    const body = `{"max_tokens":5,"messages":${JSON.stringify(messages)},"stream":true,"kv_transfer_params":${raw}}`;
    const decoded = await call(decode, body, { requestId: 'm6', path });
    assert.equal(decoded.status, 200);
    assert.match(decoded.text, /event: message_stop/);
  });

  test('each half refuses what is for the other', async () => {
    assert.equal((await call(decode, prefillCall, { requestId: 'm4' })).status, 400);
    assert.equal((await call(prefill, { messages }, { requestId: 'm4' })).status, 400);
    assert.equal((await call(prefill, { ...prefillCall, max_tokens: 7 }, { requestId: 'm4' })).status, 400);
  });

  test('a decode whose prefill engine is gone fails', async () => {
    await using lost = await startService('engine-simulator', [...quick, '--kv-connector', 'vllm-mooncake']);
    const raw = answeredParams((await call(lost, prefillCall, { requestId: 'm5' })).text);
    await lost.kill();
    assert.equal((await call(decode, decodeCall(raw), { requestId: 'm5' })).status, 500);
  });
});

describe('vllm-kvt', () => {
  let prefill: Service;
  let decode: Service;
  before(async () => {
    ({ prefill, decode } = await startPair('vllm-kvt'));
  });
  after(async () => {
    await prefill[Symbol.asyncDispose]();
    await decode[Symbol.asyncDispose]();
  });
  const staged = { messages, ...prefillForm, kv_transfer_params: { do_remote_decode: true } };
  const stagedDecode = () => ({ messages, kv_transfer_params: { do_remote_prefill: true, ...sourceOf(prefill) } });
  const batched = () => ({ messages, kv_transfer_params: sourceOf(prefill) });

  test('staged: a decode goes on from the prefill of its request id, once', async () => {
    assert.equal((await call(decode, stagedDecode(), { requestId: 's1' })).status, 400);
    assert.equal((await call(prefill, staged, { requestId: 's1' })).status, 200);
    assert.equal((await call(decode, stagedDecode(), { requestId: 's2' })).status, 400);
    assert.equal((await call(decode, stagedDecode(), { requestId: 's1' })).status, 200);
    assert.equal((await call(decode, stagedDecode(), { requestId: 's1' })).status, 400);
  });

  test('a decode engine refuses a request that names no prefill', async () => {
    const refused = await call(decode, { messages }, { requestId: 'n1' });
    assert.equal(refused.status, 400);
    assert.match(refused.text, /no prefill is named/);
  });

  test('batched: the decode engine has the prompt computed by the prefill engine', async () => {
    assert.equal((await call(decode, batched(), { requestId: 'b1' })).status, 200);
    const headers = { 'x-sim-status': '500', 'x-sim-only': 'prefill' };
    assert.equal((await call(decode, batched(), { requestId: 'b2', headers })).status, 500);
  });

  test('a client that leaves while either half stalls leaves no request behind at either', async () => {
    const stalls = [
      { 'x-sim-stall': 'prefill', 'x-sim-only': 'prefill' },
      { 'x-sim-stall': 'transfer' },
      { 'x-sim-stall': 'headers', 'x-sim-only': 'decode' },
      { 'x-sim-stall': 'prefill', 'x-sim-only': 'decode' },
    ];
    for (const [index, headers] of stalls.entries()) {
      const before = await state(decode);
      const leave = new AbortController();
      const gone = call(decode, batched(), { requestId: `l${index}`, headers, signal: leave.signal });
      gone.catch(() => {});
      await until(async () => (await state(decode)).requests === before.requests + 1);
      if (headers['x-sim-only'] === 'prefill') await until(async () => (await state(prefill)).running === 1);
      leave.abort();
      await assert.rejects(gone);
      await until(async () => (await state(decode)).abandoned === before.abandoned + 1);
      await until(async () => (await state(prefill)).running === 0);
      assert.equal((await state(decode)).running, 0);
    }
  });

  test('a transfer fails on demand', async () => {
    const headers = { 'x-sim-fail': 'transfer' };
    assert.equal((await call(decode, batched(), { requestId: 'f1', headers })).status, 500);
  });

  test('two requests of one id at once are refused, since engines would mix them up', async () => {
    const leave = new AbortController();
    const headers = { 'x-sim-stall': 'prefill' };
    const first = call(prefill, staged, { requestId: 'd1', headers, signal: leave.signal });
    first.catch(() => {});
    await until(async () => (await state(prefill)).running === 1);
    assert.match((await call(prefill, staged, { requestId: 'd1' })).text, /already running/);
    leave.abort();
    await assert.rejects(first);
    await until(async () => (await state(prefill)).running === 0);
    assert.equal((await call(prefill, staged, { requestId: 'd1' })).status, 200);
  });
});
