import type { RequestHead } from '@llm-gateway/http1';
import type { GatewayError } from '@llm-gateway/protocol';
import { Metrics } from '@llm-gateway/runtime';
import { BodyBudget } from '../body/body-budget.ts';
import type { Cors } from '../http/cors.ts';
import { type ClientSettings, clientOptions } from '../http/options.ts';
import { ClientServer } from '../http/server.ts';
import { Exchange } from './exchange.ts';

/** What a test says otherwise than the defaults of the flags. */
export interface SceneSettings extends Partial<ClientSettings> {
  readonly maxHeldBodyBytes?: number;
  readonly cors?: Cors | null;
}

/** A real listener on a free port of loopback, whose requests a test answers. */
export class ClientScene implements AsyncDisposable {
  readonly server: ClientServer;
  readonly budget: BodyBudget;
  readonly exchanges: Exchange[];

  private constructor(parts: Pick<ClientScene, 'server' | 'budget' | 'exchanges'>) {
    this.server = parts.server;
    this.budget = parts.budget;
    this.exchanges = parts.exchanges;
  }

  static async start(
    serve: (exchange: Exchange) => Promise<void> | void,
    { maxHeldBodyBytes = 1e9, cors = null, ...changes }: SceneSettings = {},
  ): Promise<ClientScene> {
    const budget = new BodyBudget(maxHeldBodyBytes);
    const exchanges: Exchange[] = [];
    const onRequest = (connection: Exchange['connection'], head: RequestHead | null, problem: GatewayError | null) => {
      const exchange = new Exchange(
        { head, problem },
        { connection, budget, self: 'self', proxies: null, cors, tracing: null },
      );
      exchanges.push(exchange);
      void serve(exchange);
    };
    const server = await ClientServer.listen({
      settings: { ...defaults(), host: '127.0.0.1', port: 0, ...changes },
      log: { info() {}, error() {} },
      metrics: new Metrics(),
      isTight: () => budget.isTight,
      onRefused() {},
      onRequest,
      onDefect: (error) => {
        throw error;
      },
    });
    return new ClientScene({ server, budget, exchanges });
  }

  get port(): number {
    return Number(new URL(this.server.address).port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

function defaults(): ClientSettings {
  const named = Object.entries(clientOptions).map(([flag, { default: value }]) => [
    flag.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase()),
    value,
  ]);
  return Object.fromEntries(named) as ClientSettings;
}
