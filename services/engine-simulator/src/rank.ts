import { randomUUID } from 'node:crypto';
import type { Server } from 'node:http';
import {
  answerJson,
  breakOff,
  type Exchange,
  type Handler,
  routeServer,
  sufferBeforeHead,
  writePieces,
} from './exchange.ts';
import { type Faults, faultHeaders, type Part, readFaults } from './fault.ts';
import { type Generation, type GenerationLimits, type Kind, readGeneration } from './generation.ts';
import type { KvCache } from './kv-cache.ts';
import { kvPlan } from './kv-protocol.ts';
import { type ModelApi, modelRoutes } from './model-api.ts';
import type { SimulatorValues } from './options.ts';
import { type Pace, pace, seededRandom } from './pace.ts';
import { Refusal } from './refusal.ts';
import { type ReplyFormat, replyFormat } from './reply.ts';
import { Slots } from './slots.ts';
import { stateRoutes } from './state-api.ts';

export interface RankOptions {
  readonly values: SimulatorValues;
  readonly limits: GenerationLimits;
  readonly rank: number;
  /** The process's; undefined without a connector. */
  readonly kvCache: KvCache | undefined;
}

/** What `/metrics` and `/simulator/state` tell. */
export interface RankCounts {
  requests: number;
  promptTokens: number;
  generationTokens: number;
  succeeded: number;
  abandoned: number;
}

/** What `/simulator/requests` shows of a generation request. */
export interface RecordedRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

/** One data-parallel rank of a simulated engine: an HTTP server with its own slots, queue and health. */
export class Rank {
  readonly server: Server;
  readonly slots: Slots;
  readonly rank: number;
  readonly counts: RankCounts = { requests: 0, promptTokens: 0, generationTokens: 0, succeeded: 0, abandoned: 0 };
  readonly recorded: RecordedRequest[] = [];
  /** What `/health` answers; 0: nothing. */
  healthStatus = 200;
  readonly #options: RankOptions;
  readonly #random: () => number;
  readonly #failure: () => number;
  readonly #requestIds = new Set<string>();
  #name = '';

  constructor(options: RankOptions) {
    const { values, rank, limits } = options;
    this.#options = options;
    this.rank = rank;
    this.slots = new Slots(values.maxConcurrency, values.queueLimit);
    this.#random = seededRandom(values.seed + rank);
    // Of its own, so that which requests fail does not depend on how many tokens were jittered before.
    this.#failure = seededRandom(values.seed + rank + 0x5eed);
    const api: ModelApi = { models: limits.models, maxModelLen: limits.maxModelLen, startedS: nowS() };
    const generate =
      (kind: Kind): Handler =>
      (exchange) =>
        this.#generate(kind, exchange);
    const routes = new Map<string, Handler>([
      ['POST /v1/chat/completions', generate('chat')],
      ['POST /v1/completions', generate('completion')],
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

  /** Computes a prompt for a decode engine that asks for it now. Resolves when its first token would be there. */
  async prefill(exchange: Exchange): Promise<void> {
    const faults = this.#faults(exchange, 'prefill');
    await sufferBeforeHead(faults, exchange);
    using _slot = await this.slots.acquire(exchange.signal);
    if (faults.stall === 'prefill') await exchange.pause.forEver();
    await pace({ ...this.#pace(faults, 'prefill'), count: 1 }, exchange.pause, () => {});
  }

  async #generate(kind: Kind, exchange: Exchange): Promise<void> {
    const { values, limits, kvCache } = this.#options;
    this.counts.requests += 1;
    this.#record(exchange);
    const generation = readGeneration(kind, exchange.body, limits);
    const plan = kvPlan(generation, {
      connector: values.kvConnector,
      role: values.kvRole,
      requestId: exchange.requestId,
    });
    const faults = this.#faults(exchange, plan.part);
    using _id = this.#claimRequestId(exchange.requestId);
    try {
      await sufferBeforeHead(faults, exchange);
      if (values.errorRate > 0 && this.#failure() < values.errorRate)
        throw new Refusal(values.errorStatus, 'simulated failure');
      if (plan.part === 'decode') {
        if (faults.stall === 'transfer') await exchange.pause.forEver();
        if (faults.failsTransfer) throw new Refusal(500, 'KV transfer failed');
        await kvCache?.fetch(plan, generation.promptHash, {
          exchange,
          headers: faultHeaders(exchange.request.headers),
        });
      }
      const id = `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${exchange.requestId ?? randomUUID().replaceAll('-', '')}`;
      const format = replyFormat(generation, id, nowS());
      const timing = { ...this.#pace(faults, plan.part), count: format.steps };
      if (generation.stream) await this.#stream(exchange, format, { faults, timing });
      else {
        await this.#compute(exchange, { faults, timing });
        const offered = plan.part === 'prefill' ? kvCache?.offer(plan, generation.promptHash, id) : undefined;
        await answerWhole(exchange, format.unary(faults.omitsKvParams ? undefined : offered), faults);
      }
      this.#count(generation);
    } catch (error) {
      if (exchange.signal.aborted) this.counts.abandoned += 1;
      throw error;
    }
  }

  async #compute(exchange: Exchange, { faults, timing }: { faults: Faults; timing: Pace }): Promise<void> {
    using _slot = await this.slots.acquire(exchange.signal);
    if (faults.stall === 'prefill') await exchange.pause.forEver();
    await pace(timing, exchange.pause, () => {});
  }

  /** The head goes out before the queue and the prefill: that is what vLLM does. */
  async #stream(
    exchange: Exchange,
    format: ReplyFormat,
    { faults, timing }: { faults: Faults; timing: Pace },
  ): Promise<void> {
    const { response, pause, signal } = exchange;
    this.slots.requireRoom();
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
    response.flushHeaders();
    if (faults.cutAfter === 0) await breakOff(exchange, faults);
    using slot = await this.slots.acquire(signal);
    if (faults.stall === 'prefill') await pause.forEver();
    const breaks = [faults.cutAfter, faults.errorAfter, faults.stall === 'stream' ? faults.stallAfter : undefined];
    const stopAt = Math.min(...breaks.map((at) => at ?? Number.POSITIVE_INFINITY));
    await pace({ ...timing, count: Math.min(timing.count, stopAt) }, pause, async (from, to) => {
      const events = from === 0 ? format.opening() : [];
      for (let step = from; step < to; step += 1) events.push(...format.step(step));
      await writePieces(exchange, events);
    });
    if (faults.errorAfter === stopAt) throw new Refusal(500, 'simulated error in the stream');
    if (faults.cutAfter === stopAt) await breakOff(exchange, faults);
    if (stopAt < Number.POSITIVE_INFINITY) await pause.forEver();
    slot[Symbol.dispose]();
    await writePieces(exchange, format.closing());
    response.end();
  }

  #faults({ request }: Exchange, part: Part): Faults {
    return readFaults(request.headers, { part, engine: this.name, port: this.port });
  }

  #pace(faults: Faults, part: Part): Omit<Pace, 'count'> {
    const { values } = this.#options;
    const interTokenMs = faults.interTokenMs ?? values.interTokenMs;
    // The prompt was computed elsewhere: its first token is one step, like any other.
    const remoteMs = values.kvTransferMs + interTokenMs;
    const firstMs = faults.firstTokenMs ?? (part === 'decode' ? remoteMs : values.timeToFirstTokenMs);
    const jittered = (ms: number) =>
      values.jitter === 0 || ms === 0 ? ms : ms * (1 + values.jitter * (2 * this.#random() - 1));
    return { firstMs: () => jittered(firstMs), nextMs: () => jittered(interTokenMs) };
  }

  /** With a connector, requests are known by their id across processes: two of one id at once would be mistaken for each other. */
  #claimRequestId(id: string | undefined): Disposable {
    if (id === undefined || this.#options.values.kvConnector === '') return { [Symbol.dispose]() {} };
    if (this.#requestIds.has(id)) throw new Refusal(400, `Request id ${id} already running.`);
    this.#requestIds.add(id);
    return { [Symbol.dispose]: () => void this.#requestIds.delete(id) };
  }

  #record({ request, body }: Exchange): void {
    const { recordRequests } = this.#options.values;
    if (recordRequests === 0) return;
    this.recorded.push({ path: request.url ?? '', headers: request.headers, body });
    if (this.recorded.length > recordRequests) this.recorded.shift();
  }

  #count({ promptTokens, choices }: Generation): void {
    this.counts.succeeded += 1;
    this.counts.promptTokens += promptTokens;
    for (const choice of choices) this.counts.generationTokens += choice.tokens.length;
  }
}

async function answerWhole(exchange: Exchange, body: string, faults: Faults): Promise<void> {
  const { response, pause } = exchange;
  const at = faults.cutAfter ?? (faults.stall === 'stream' ? faults.stallAfter : undefined);
  if (at === undefined) {
    answerJson(response, body);
    return;
  }
  const bytes = Buffer.from(body);
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': bytes.length });
  response.write(bytes.subarray(0, at));
  if (faults.cutAfter === undefined) await pause.forEver();
  await breakOff(exchange, faults);
}

function nowS(): number {
  return Math.floor(Date.now() / 1000);
}
