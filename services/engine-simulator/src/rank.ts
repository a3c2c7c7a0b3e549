import type { Server } from 'node:http';
import { type Engine, SlotEngine } from './engine.ts';
import type { GenerationLimits } from './generation.ts';
import { generationRoutes } from './generation-api.ts';
import { Generator } from './generator.ts';
import type { KvCache } from './kv-cache.ts';
import { mediaRoutes } from './media-api.ts';
import { type ModelApi, modelRoutes } from './model-api.ts';
import { ModelledEngine } from './modelled-engine.ts';
import type { SimulatorValues } from './options.ts';
import { seededRandom } from './pace.ts';
import { responseRoutes } from './responses-api.ts';
import { type Handler, routeServer } from './route-server.ts';
import { stateRoutes } from './state-api.ts';
import { Totals } from './totals.ts';

export interface RankOptions {
  readonly values: SimulatorValues;
  readonly limits: GenerationLimits;
  readonly rank: number;
  /** The process's; undefined without a connector. */
  readonly kvCache: KvCache | undefined;
}

/**
 * One data-parallel rank of a simulated engine: an HTTP server with its own places, queue and
 * health.
 */
export class Rank {
  readonly server: Server;
  readonly engine: Engine;
  readonly metricsOf: 'vllm' | 'sglang';
  readonly rank: number;
  readonly totals = new Totals();
  readonly generator: Generator;
  /** What `/health` answers; 0: nothing. */
  healthStatus = 200;
  readonly #options: RankOptions;
  #name = '';

  constructor(options: RankOptions) {
    const { values, rank, limits, kvCache } = options;
    const { totals } = this;
    this.#options = options;
    this.rank = rank;
    this.metricsOf = values.metricsOf;
    this.engine =
      values.prefillTokensPerS > 0
        ? new ModelledEngine(values, seededRandom(values.seed + rank))
        : new SlotEngine(values.maxConcurrency, values.queueLimit);
    this.generator = new Generator({ values, rank, engine: this.engine, kvCache, totals, target: () => this });
    const api: ModelApi = { ...limits, startedS: Math.floor(Date.now() / 1000), totals, generator: this.generator };
    const routes = new Map<string, Handler>([
      ...generationRoutes(limits, this.generator),
      ...responseRoutes(limits, this.generator),
      ...mediaRoutes(api),
      ...modelRoutes(api),
      ...stateRoutes(this),
    ]);
    this.server = routeServer(routes, { keepAliveMs: values.keepAliveMs, engine: () => this.name });
  }

  /** `--name`, with the rank when there are several; else the address it is bound to. */
  get name(): string {
    if (this.#name) return this.#name;
    const { values, rank } = this.#options;
    if (values.name) this.#name = values.dpSize > 1 ? `${values.name}-${rank}` : values.name;
    else this.#name = `${values.host}:${this.port}`;
    return this.#name;
  }

  get port(): number {
    const address = this.server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  get models(): readonly string[] {
    return this.#options.limits.models;
  }

  get waitingTransfers(): number {
    return this.#options.kvCache?.transfers.size ?? 0;
  }
}
