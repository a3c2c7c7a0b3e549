import { type NatsServer, startNats } from '@llm-gateway/testing';
import type { Bus } from './bus.ts';
import { inProcessBus } from './in-process.ts';
import { connectNats } from './nats.ts';
import { type Counts, counting, reached } from './scenario.ts';

/** A network of processes: each bus stands for one. */
export interface Network extends AsyncDisposable {
  /** What carries it; null: nothing that could fail. */
  readonly server: NatsServer | null;
  /** The bus of a further process; connected. */
  join(): Promise<{ readonly bus: Bus; readonly counts: Counts }>;
}

export const networks: Record<string, () => Promise<Network>> = {
  async 'in process'() {
    const { counts, observer } = counting();
    const bus = inProcessBus(observer);
    return {
      server: null,
      join: async () => ({ bus, counts }),
      [Symbol.asyncDispose]: () => bus[Symbol.asyncDispose](),
    };
  },
  async 'over NATS'() {
    const server = await startNats();
    await using stack = new AsyncDisposableStack();
    stack.use(server);
    const kept = stack.move();
    return {
      server,
      async join() {
        const { counts, observer } = counting();
        const bus = kept.use(connectNats({ natsServers: server.url }, { name: 'test', observer }));
        await reached(bus, true);
        return { bus, counts };
      },
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  },
};
