import { randomUUID } from 'node:crypto';
import type { Bus } from '@llm-gateway/bus';
import { tellStatus } from '@llm-gateway/bus';
import { type Describe, InternalServer, type Logger, type Running } from '@llm-gateway/runtime';
import { Watch } from '@llm-gateway/watch';
import { Access } from './access.ts';
import { loadAssets } from './assets.ts';
import { Live } from './live.ts';
import type { ConsoleValues } from './options.ts';
import { routes } from './page-api.ts';
import { maxBodyBytes } from './posted-body.ts';
import { Trials } from './trial.ts';

const bodyTimeoutMs = 10_000;

export interface ConsoleDeps {
  readonly bus: Bus;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly describe: Describe;
}

/**
 * Starts the console: bound when the promise resolves. It is on the way of no request. Whoever made
 * the bus closes it.
 */
export async function start(values: ConsoleValues, { bus, log, describe }: ConsoleDeps): Promise<Running> {
  await using parts = new AsyncDisposableStack();
  const watch: Watch = parts.use(
    new Watch(bus, {
      requests: true,
      onEvent: (event) => live.onEvent(event),
      onRequests: (rows) => live.onRequests(rows),
    }),
  );
  const live = parts.use(new Live(watch));
  parts.use(tellStatus(bus, { process: `console-${randomUUID().slice(0, 8)}`, service: 'console', describe }));
  const access = new Access({ password: values.consolePassword, identityHeader: values.consoleIdentityHeader });
  const trials = new Trials(values.consoleIngress.replace(/\/$/, ''));
  const server = parts.use(
    new InternalServer({
      body: { timeoutMs: bodyTimeoutMs, maxBytes: maxBodyBytes },
      routes: (app) =>
        routes(app, {
          watch,
          live,
          access,
          trials,
          actions: values.consoleActions,
          log,
          assets: loadAssets(),
          describe,
        }),
    }),
  );
  const { url } = await server.listen({
    host: values.consoleHost,
    port: values.consolePort,
    flags: { host: 'console-host', port: 'console-port' },
  });
  const kept = parts.move();
  return {
    addresses: { console: url },
    ready: () => true,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
