/**
 * Limits in time that the gateway keeps on a quiet machine. Tests do not hold them, because
 * whatever else runs there breaks them. `node bench/src/deadlines.ts` prints a table in Markdown,
 * and exits with 1 when a limit is exceeded.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type Engine, freePort, type Script, stall, startEngine, startService, until } from '@llm-gateway/testing';
import { rangeText, series } from './series.ts';

const rounds = 30;
const path = '/v1/completions';
const prompt = JSON.stringify({ prompt: 'hello', stream: true });
const headers = { 'content-type': 'application/json' };
const chunk = 'data: {"choices":[{"index":0,"text":"a"}]}\n\n';

let exceeded = false;

/** The row of a limit, which holds for the worst sample or for the median. */
function report(what: string, samples: readonly number[], of: 'worst' | 'median', limitMs: number): void {
  const { median, high } = series(samples);
  const figure = of === 'worst' ? high : median;
  if (figure > limitMs) exceeded = true;
  console.log(`| ${what} | ${rangeText(samples, { unit: ' ms' })} | ${of} ${limitMs} ms |`);
}

/** The time from the end of each client to the end of its request at the engine. */
async function leaving(url: string, engine: Engine, script: Script, answered: boolean): Promise<number[]> {
  engine.script = script;
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const controller = new AbortController();
    const seen = engine.requests.length;
    const asked = fetch(url + path, { method: 'POST', body: prompt, headers, signal: controller.signal });
    const failed = asked.catch(() => {});
    const request = await engine.request(seen);
    if (answered) await (await asked).body?.getReader().read();
    const leftAtMs = performance.now();
    controller.abort();
    const closedAtMs = await until(() => request.closedAt, { intervalMs: 1 });
    samples.push(closedAtMs - leftAtMs);
    await failed;
  }
  return samples;
}

/** The same for many streams that are silent and end at once: until the last has ended. */
async function leavingTogether(url: string, engine: Engine, count: number): Promise<number> {
  engine.script = () => stall({ afterBytes: chunk.length }, { body: chunk });
  const { hostname, port } = new URL(url);
  const head = `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: ${prompt.length}\r\n\r\n`;
  const seen = engine.requests.length;
  const sockets = [];
  while (sockets.length < count) {
    const opened = Array.from({ length: 50 }, () => connect(Number(port), hostname));
    for (const socket of opened) socket.write(head + prompt);
    await Promise.all(opened.map((socket) => once(socket, 'data')));
    sockets.push(...opened);
  }
  const leftAtMs = performance.now();
  for (const socket of sockets) socket.destroy();
  await until(() => engine.live === 0);
  return Math.max(...engine.requests.slice(seen).map(({ closedAt }) => closedAt ?? 0)) - leftAtMs;
}

/** The time from the end of a client to the start of the request that waited for its slot. */
async function nextInQueue(): Promise<number[]> {
  await using engine = await startEngine(() => stall('before-head'));
  const limits = ['--instance-max-requests', '1', '--queue-max-requests', '10'];
  const flags = ['--llm-backend-endpoints', engine.address, ...limits];
  await using gateway = await startService('standalone', flags);
  const ask = (signal: AbortSignal) => {
    fetch(gateway.url + path, { method: 'POST', body: prompt, headers, signal }).catch(() => {});
  };
  const samples: number[] = [];
  let holder = new AbortController();
  ask(holder.signal);
  await engine.request(0);
  for (let round = 1; round <= rounds; round++) {
    const next = new AbortController();
    ask(next.signal);
    await until(async () => (await gateway.metrics()).value('llm_gateway_queue_requests') === 1);
    const leftAtMs = performance.now();
    holder.abort();
    samples.push((await engine.request(round)).receivedAt - leftAtMs);
    holder = next;
  }
  return samples;
}

async function firstByteMs(base: string, body: object, more: Record<string, string> = {}): Promise<number> {
  const startedAtMs = performance.now();
  const response = await fetch(base + path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { ...headers, ...more },
  });
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  const reader = response.body?.getReader();
  await reader?.read();
  const tookMs = performance.now() - startedAtMs;
  while (!(await reader?.read())?.done);
  return tookMs;
}

/** What a split request takes to its first token beyond what its two engines take. */
async function splitAdds(): Promise<number[]> {
  const pace = ['--time-to-first-token-ms', '50', '--inter-token-ms', '1', '--response-tokens', '8'];
  const connector = ['--kv-connector', 'vllm-kvt', ...pace];
  const ports = [await staticPort(), await staticPort()];
  const [prefillPort, decodePort] = ports.map(String);
  await using prefill = await startService('engine-simulator', [...connector, '--port', `${prefillPort}`]);
  await using decode = await startService('engine-simulator', [...connector, '--port', `${decodePort}`]);
  await using gateway = await startService('standalone', [
    ...['--pd-disagg-protocol', 'vllm-kvt', '--separate-pd-scheduling=true', '--llm-backend-discovery', 'endpoints'],
    ...['--llm-backend-endpoints', ports.map((port) => `127.0.0.1:${port}`).join()],
  ]);
  const form = { prompt: 'hello', max_tokens: 1, n: 1, stream: false, ignore_eos: true };
  const direct = async () => {
    const id = { 'x-request-id': randomUUID() };
    const prefillMs = await firstByteMs(prefill.url, { ...form, kv_transfer_params: { do_remote_decode: true } }, id);
    const { hostname, port } = new URL(prefill.addresses.kv ?? '');
    const params = { do_remote_prefill: true, remote_host: hostname, remote_port: Number(port) };
    const body = { prompt: 'hello', stream: true, kv_transfer_params: params };
    return prefillMs + (await firstByteMs(decode.url, body, id));
  };
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const directMs = await direct();
    samples.push((await firstByteMs(gateway.url, { prompt: 'hello', stream: true })) - directMs);
  }
  return samples;
}

/** The KV port of an engine of a static list is 20,000 higher, and must be free as well. */
async function staticPort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port + 20_000 < 32_768) return port;
  }
}

console.log('| from | measured | limit |\n| --- | ---: | ---: |');
{
  await using engine = await startEngine();
  await using gateway = await startService('standalone', ['--llm-backend-endpoints', engine.address]);
  const { url } = gateway;
  const cases: readonly (readonly [string, Script, boolean])[] = [
    ['before the head', () => stall('before-head'), false],
    ['after the head', () => stall('after-head'), false],
    ['in the stream', () => stall({ afterBytes: chunk.length }, { body: chunk }), true],
  ];
  for (const [when, script, answered] of cases) {
    const samples = await leaving(url, engine, script, answered);
    report(`a client that leaves ${when}, to the end of its request at the engine`, samples, 'worst', 100);
  }
  const together = [await leavingTogether(url, engine, 1000), await leavingTogether(url, engine, 1000)];
  report('1,000 clients that leave silent streams at once, to the end of the last', together, 'worst', 100);
}
report('a client that leaves, to the request that waited for its slot', await nextInQueue(), 'worst', 100);
report('the first token of the two engines of a split, to that of the gateway', await splitAdds(), 'median', 3);
if (exceeded) process.exitCode = 1;
