import { once } from 'node:events';
import type { Server } from 'node:http';
import { advertisedHost, listen, type Parts, type Running } from '@llm-gateway/runtime';
import { KvCache } from './kv-cache.ts';
import { models, type SimulatorValues, staticKvPortOffset } from './options.ts';
import { Rank } from './rank.ts';

export { type SimulatorValues, simulatorOptions } from './options.ts';

const drainPollMs = 50;

/**
 * Starts a simulated engine; several may run in one process. Addresses: `http` is rank 0, `http-1`
 * … the others, `kv` where decode engines ask. Ready as soon as it is bound; `/simulator/health`
 * changes what `/health` says, not this.
 */
export async function start(
  values: SimulatorValues & { readonly advertiseHost?: string },
  { log }: Pick<Parts, 'log'>,
): Promise<Running> {
  await using parts = new AsyncDisposableStack();
  const limits = { models: models(values), maxModelLen: values.maxModelLen, responseTokens: values.responseTokens };
  const ranks: Rank[] = [];
  const kvCache =
    values.kvConnector === ''
      ? undefined
      : parts.use(
          new KvCache({
            name: values.name || 'kv',
            keepAliveMs: values.keepAliveMs,
            async prefill(call, prompt) {
              await ranks[0]?.generator.prefill(call, prompt);
            },
          }),
        );
  for (let rank = 0; rank < values.dpSize; rank += 1) ranks.push(new Rank({ values, limits, rank, kvCache }));

  const addresses: Record<string, string> = {};
  for (const { server, rank } of ranks) {
    const port = values.port === 0 ? 0 : values.port + rank;
    addresses[rank === 0 ? 'http' : `http-${rank}`] = await bind(server, { host: values.host, port }, parts);
  }
  if (kvCache) {
    const staticPort = values.port === 0 ? 0 : values.port + staticKvPortOffset;
    const address = await bind(kvCache.server, { host: values.host, port: values.kvPort || staticPort }, parts);
    const host = advertisedHost({
      advertiseHost: values.kvHost || (values.advertiseHost ?? ''),
      listenHost: values.host,
    });
    kvCache.announce(host, Number(new URL(address).port));
    addresses.kv = address;
  }
  log.debug({ models: limits.models, ranks: ranks.length }, 'simulating');

  const kept = parts.move();
  return {
    addresses,
    ready: () => true,
    drain: async (signal) => {
      await Promise.all(ranks.map(({ server }) => drain(server, signal)));
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Takes no new connections, and waits until those there are have their answers. */
async function drain(server: Server, signal: AbortSignal): Promise<void> {
  const closed = once(server, 'close', { signal }).catch(() => {});
  server.close();
  // `close` ends the connections that are idle now; others become so when their answer ends.
  const poll = setInterval(() => server.closeIdleConnections(), drainPollMs);
  await closed;
  clearInterval(poll);
}

async function bind(
  server: Server,
  address: { host: string; port: number },
  parts: AsyncDisposableStack,
): Promise<string> {
  const { url } = await listen(server, address);
  parts.defer(() => {
    server.close();
    server.closeAllConnections();
  });
  return url;
}
