import { setTimeout as delay } from 'node:timers/promises';
import { connectNats } from '@llm-gateway/bus';
import { instanceOrder } from '@llm-gateway/protocol';
import {
  atRate,
  completion,
  type EngineReply,
  event,
  startEngine,
  startNats,
  startService,
  until,
} from '@llm-gateway/testing';
import { series } from '../series.ts';

const streams = 200;
const perSecond = 200;

export interface DrainFigures {
  readonly drains: number;
  readonly streams: number;
  readonly requestsPerSecond: number;
  /**
   * When the last request came to the drained engine, after the answer to its order: median and
   * highest.
   */
  readonly lastRequestMs: { readonly median: number; readonly high: number };
  readonly broken: number;
}

/**
 * An engine is drained again and again, under streams that it holds and while requests go on. Says
 * how long after the answer to the order the last request came to it.
 */
export async function measureDrains({ drains }: { readonly drains: number }): Promise<DrainFigures> {
  await using stack = new AsyncDisposableStack();
  let isOver = false;
  const ends: (() => void)[] = [];
  const holding = async (reply: EngineReply) => {
    reply.head(200, { 'content-type': 'text/event-stream' });
    await reply.write(event({ choices: [{ index: 0, delta: { content: 'one' } }] }));
    await Promise.race([new Promise<void>((resolve) => ends.push(resolve)), reply.stall()]);
    await reply.write(event('[DONE]'));
    reply.end();
  };
  const isStream = (body: Buffer) => body.includes('"stream":true');
  const script = ({ body }: { readonly body: Buffer }) => (isStream(body) ? holding : completion());
  const drained = stack.use(await startEngine(script));
  const other = stack.use(await startEngine(script));
  const nats = stack.use(await startNats());
  const start = async (name: string, flags: readonly string[] = []) =>
    stack.use(await startService(name, ['--nats-servers', nats.url, ...flags]));
  const endpoints = `${drained.address},${other.address}`;
  await start('discovery', ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', endpoints]);
  await Promise.all([start('router'), start('router')]);
  const ingresses = await Promise.all([start('ingress'), start('ingress')]);
  const bus = stack.use(connectNats({ natsServers: nats.url }, { name: 'order' }));
  await until(() => bus.connected);

  const ask = async (at: number, stream: boolean): Promise<string> => {
    const body = JSON.stringify({ model: 'm', stream, messages: [{ role: 'user', content: 'Go' }] });
    const url = `${ingresses[at % ingresses.length]?.url}/v1/chat/completions`;
    const headers = { 'content-type': 'application/json' };
    return await (await fetch(url, { method: 'POST', headers, body })).text();
  };
  const texts: Promise<string>[] = [];
  for (let at = 0; ends.length < streams; at++) {
    texts.push(ask(at, true));
    await delay(2);
  }
  const asked: Promise<string>[] = [];
  const load = atRate(
    perSecond,
    () => isOver,
    () => asked.push(ask(asked.length, false)),
  );
  const order = (kind: 'drain' | 'undrain') =>
    bus.request(
      instanceOrder,
      { instance: `${drained.address}_dp0`, kind, forMs: 600_000, by: 'bench', reason: '', force: false },
      { timeoutMs: 3000 },
    );
  const lastMs: number[] = [];
  for (let n = 0; n < drains; n++) {
    const before = drained.requests.length;
    await until(() => drained.requests.length > before + 10, { what: 'it serves' });
    const { result } = await order('drain');
    if (result !== 'done') throw new Error(`the order was answered by ${result}`);
    const answeredMs = performance.now();
    await delay(1000);
    lastMs.push(Math.max(0, (drained.requests.at(-1)?.receivedAt ?? 0) - answeredMs));
    await order('undrain');
  }
  isOver = true;
  await load;
  for (const end of ends) end();
  const broken = (await Promise.all(texts)).filter((text) => !text.endsWith('data: [DONE]\n\n')).length;
  const failed = (await Promise.all(asked)).filter((text) => !text.includes('"choices"')).length;
  const { median, high } = series(lastMs);
  const rounded = (ms: number) => Math.round(ms * 10) / 10;
  return {
    drains,
    streams: texts.length,
    requestsPerSecond: perSecond,
    lastRequestMs: { median: rounded(median), high: rounded(high) },
    broken: broken + failed,
  };
}
