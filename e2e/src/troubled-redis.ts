import { type RedisServer, startProxy, startRedis, until } from '@llm-gateway/testing';

/** What may be wrong with a store. */
export const troubles = ['read-only', 'slow', 'slower', 'gone'] as const;
export type Trouble = (typeof troubles)[number];

/** A real Redis that can be made half broken. Its users reach it at `port`. */
export interface TroubledRedis extends AsyncDisposable {
  readonly port: number;
  readonly server: RedisServer;
  break(trouble: Trouble): Promise<void>;
  repair(): Promise<void>;
}

/** `slow` delays each answer by less than `timeoutMs`, `slower` by more. */
export async function startTroubledRedis({ timeoutMs }: { timeoutMs: number }): Promise<TroubledRedis> {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startRedis());
  const proxy = stack.use(await startProxy(server.port));
  const owned = stack.move();
  return {
    port: proxy.port,
    server,
    async break(trouble) {
      if (trouble === 'read-only') await server.command('REPLICAOF', '127.0.0.1', '1');
      else if (trouble === 'slow') proxy.slow(timeoutMs / 8);
      else if (trouble === 'slower') proxy.slow(2 * timeoutMs);
      else await Promise.all([proxy.cut(), server.kill()]);
    },
    async repair() {
      if (!server.running) await server.start();
      await server.command('REPLICAOF', 'NO', 'ONE');
      await proxy.restore();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Resolves when this much time has passed: for a fault that must last. */
export async function lasts(ms: number): Promise<void> {
  const sinceMs = performance.now();
  await until(() => performance.now() - sinceMs >= ms, { timeoutMs: 2 * ms + 10_000 });
}
