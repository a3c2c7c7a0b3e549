import { blockKeys } from './block-keys.ts';
import type { Client, Emit, Engine, Work } from './engine.ts';
import { type Faults, faultHeaders, type Part, readFaults } from './fault.ts';
import { completionTokens, type Generation } from './generation.ts';
import type { KvCache, RemotePrompt } from './kv-cache.ts';
import { type KvPlan, kvPlan } from './kv-protocol.ts';
import type { SimulatorValues } from './options.ts';
import { Pause, seededRandom, varied } from './pace.ts';
import { Refusal } from './refusal.ts';
import type { Answering, Computed, ReplyFormat } from './reply.ts';
import { answerJson, breakOff, type EngineCall, type Handler, sufferBeforeHead, writePieces } from './route-server.ts';
import type { Totals } from './totals.ts';

/** A request that generates, with the shape of its answer. */
export interface Asked {
  readonly generation: Generation;
  readonly id: string;
  reply(answering: Answering): ReplyFormat;
  /** Answered at once, and computed without its client. */
  readonly background?: Background;
}

/** A generation that no client waits for. */
export interface Background {
  /** The answer for now; the signal ends the computation. */
  begin(answering: Answering): { readonly body: string; readonly signal: AbortSignal };
  /** Called at its end, with what went wrong. */
  end(answering: Answering, error?: unknown): void;
}

export interface GeneratorOptions {
  readonly values: SimulatorValues;
  readonly rank: number;
  readonly engine: Engine;
  readonly kvCache: KvCache | undefined;
  readonly totals: Totals;
  readonly target: () => { readonly name: string; readonly port: number };
}

/**
 * A request on its way: what it asked for, what it is to this engine, and what goes wrong with it.
 */
interface Run {
  readonly asked: Asked;
  readonly plan: KvPlan;
  readonly faults: Faults;
  readonly answering: Answering;
  readonly format: ReplyFormat;
  /** Steps computed so far. */
  steps: number;
}

/** What `/simulator/requests` shows. */
export interface RecordedRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

/**
 * Generates: from a request that was understood to the last byte of its answer, with the faults it
 * asks for.
 */
export class Generator {
  /** Requests to generate that came, whatever became of them. */
  requests = 0;
  abandoned = 0;
  /** The last requests, `--record-requests` of them. */
  readonly recorded: RecordedRequest[] = [];
  readonly #options: GeneratorOptions;
  readonly #random: () => number;
  readonly #failure: () => number;
  readonly #requestIds = new Set<string>();

  constructor(options: GeneratorOptions) {
    const { values, rank } = options;
    this.#options = options;
    this.#random = seededRandom(values.seed + rank);
    // Of its own, so that which requests fail does not depend on how many tokens were jittered
    // before.
    this.#failure = seededRandom(values.seed + rank + 0x5eed);
  }

  /** Serves an API that generates; `read` understands its requests, or throws a `Refusal`. */
  generating(read: (call: EngineCall) => Asked): Handler {
    return async (call) => {
      this.requests += 1;
      this.#record(call);
      await this.#generate(read(call), call);
    };
  }

  /**
   * Serves what is answered at once: with the faults that come before an answer's head, and no
   * others.
   */
  immediate(handler: Handler): Handler {
    return async (call) => {
      this.#record(call);
      const faults = this.#faults(call, 'neutral');
      const isBefore = breakOf(faults).how === undefined || (faults.cutAfter ?? 0) < 0;
      if (!isBefore || (faults.stall !== undefined && faults.stall !== 'headers')) {
        throw new Refusal(400, 'this path has no tokens at which something could go wrong');
      }
      await sufferBeforeHead(faults, call);
      await handler(call);
    };
  }

  async #generate(asked: Asked, call: EngineCall): Promise<void> {
    const { values, kvCache } = this.#options;
    const { generation, id } = asked;
    const plan = kvPlan(generation, {
      connector: values.kvConnector,
      role: values.kvRole,
      requestId: call.requestId,
    });
    const faults = this.#faults(call, plan.part);
    using _id = this.#claimRequestId(call.requestId);
    const computed: Computed = { cachedTokens: undefined };
    const answering = { id, createdS: Math.floor(Date.now() / 1000), computed };
    const run: Run = { asked, plan, faults, answering, format: asked.reply(answering), steps: 0 };
    try {
      await sufferBeforeHead(faults, call);
      if (values.errorRate > 0 && this.#failure() < values.errorRate)
        throw new Refusal(values.errorStatus, 'simulated failure');
      if (plan.part === 'decode') {
        if (faults.stall === 'transfer') await call.pause.forEver();
        if (faults.failsTransfer) throw new Refusal(500, 'KV transfer failed');
        const { promptHash, promptTokens } = generation;
        const prompt = { promptHash, promptTokens, blockKeys: values.kvBlocks > 0 ? keysOf(generation) : [] };
        const headers = faultHeaders(call.request.headers);
        await kvCache?.fetch(plan, prompt, { call, headers });
      }
      if (asked.background) this.#beginBackground(run, asked.background, call);
      else if (generation.stream) await this.#stream(run, call);
      else await this.#answer(run, call);
      if (!asked.background) this.#count(run, 'finished');
    } catch (error) {
      if (call.signal.aborted) this.abandoned += 1;
      this.#count(run, 'unfinished');
      throw error;
    }
  }

  /**
   * Computes a prompt for a decode engine that asks for it now. Resolves when its first token would
   * be there.
   */
  async prefill(call: EngineCall, prompt: RemotePrompt): Promise<void> {
    const faults = this.#faults(call, 'prefill');
    await sufferBeforeHead(faults, call);
    const isHeld = faults.stall === 'prefill';
    const work: Work = {
      ...prompt,
      steps: isHeld ? 0 : 1,
      isHeld,
      isPrefilled: false,
      computed: { cachedTokens: undefined },
      ...this.#times(faults, 'prefill'),
    };
    await this.#options.engine.compute(work, call, () => {});
  }

  async #answer(run: Run, call: EngineCall): Promise<void> {
    const { asked, plan, faults, answering, format } = run;
    await this.#compute(run, call, () => {});
    const { promptHash } = asked.generation;
    const offered = plan.part === 'prefill' ? this.#options.kvCache?.offer(plan, promptHash, answering.id) : undefined;
    await answerWhole(call, format.unary(faults.omitsKvParams ? undefined : offered), faults);
  }

  /** The head goes out before the queue and the prefill: that is what vLLM does. */
  async #stream(run: Run, call: EngineCall): Promise<void> {
    const { format, faults } = run;
    const { response } = call;
    this.#options.engine.requireRoom();
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
    response.flushHeaders();
    if (faults.cutAfter === 0) await breakOff(call, faults);
    try {
      await writePieces(call, format.greeting());
      await this.#compute(run, call, async (from, to) => {
        const events = from === 0 ? format.opening() : [];
        for (let step = from; step < to; step += 1) events.push(...format.step(step));
        await writePieces(call, events);
      });
      const { how } = breakOf(faults);
      if (how === 'error') throw new Refusal(500, 'simulated error in the stream');
      if (how === 'cut') await breakOff(call, faults);
      await writePieces(call, format.closing());
    } catch (error) {
      if (error instanceof Refusal && !call.signal.aborted) response.end(format.failure(error).join(''));
      throw error;
    }
    response.end();
  }

  async #compute(run: Run, client: Client, emit: Emit): Promise<void> {
    const { asked, plan, faults, format, answering } = run;
    const { generation } = asked;
    const { at, how } = generation.stream ? breakOf(faults) : whole;
    const neverBegins = faults.stall === 'prefill';
    const work: Work = {
      promptTokens: generation.promptTokens,
      blockKeys: () => keysOf(generation),
      steps: neverBegins ? 0 : Math.min(format.steps, at),
      isHeld: neverBegins || how === 'stall',
      isPrefilled: plan.part === 'decode',
      computed: answering.computed,
      ...this.#times(faults, plan.part),
    };
    await this.#options.engine.compute(work, client, async (from, to) => {
      run.steps = to;
      await emit(from, to);
    });
  }

  #beginBackground(run: Run, background: Background, { response }: EngineCall): void {
    this.#options.engine.requireRoom();
    const { body, signal } = background.begin(run.answering);
    answerJson(response, body);
    void this.#compute(run, { signal, pause: new Pause(signal) }, () => {}).then(
      () => {
        run.format.unary();
        this.#count(run, 'finished');
        background.end(run.answering);
      },
      (error: unknown) => {
        this.#count(run, 'unfinished');
        background.end(run.answering, error);
      },
    );
  }

  #faults({ request }: EngineCall, part: Part): Faults {
    const { values, target } = this.#options;
    const { name, port } = target();
    const faults = readFaults(request.headers, { part, engine: name, port });
    if (values.prefillTokensPerS > 0 && (faults.firstTokenMs ?? faults.interTokenMs) !== undefined) {
      throw new Refusal(400, 'the times of a modelled engine are those of all its requests');
    }
    return faults;
  }

  #times(faults: Faults, part: Part): Pick<Work, 'firstMs' | 'nextMs'> {
    const { values } = this.#options;
    const interTokenMs = faults.interTokenMs ?? values.interTokenMs;
    // The prompt was computed elsewhere: its first token is one step, like any other.
    const remoteMs = values.kvTransferMs + interTokenMs;
    const firstMs = faults.firstTokenMs ?? (part === 'decode' ? remoteMs : values.timeToFirstTokenMs);
    const jittered = (ms: number) => varied(ms, values.jitter, this.#random);
    return { firstMs: () => jittered(firstMs), nextMs: () => jittered(interTokenMs) };
  }

  /**
   * With a connector, requests are known by their id across processes: two of one id at once would
   * be mistaken for each other.
   */
  #claimRequestId(id: string | undefined): Disposable {
    if (id === undefined || this.#options.values.kvConnector === '') return { [Symbol.dispose]() {} };
    if (this.#requestIds.has(id)) throw new Refusal(400, `Request id ${id} already running.`);
    this.#requestIds.add(id);
    return { [Symbol.dispose]: () => void this.#requestIds.delete(id) };
  }

  #record({ request, body }: EngineCall): void {
    const { recordRequests } = this.#options.values;
    if (recordRequests === 0) return;
    this.recorded.push({ path: request.url ?? '', headers: request.headers, body });
    if (this.recorded.length > recordRequests) this.recorded.shift();
  }

  #count({ asked, plan, steps, answering }: Run, outcome: 'finished' | 'unfinished'): void {
    const { generation } = asked;
    const { model } = generation;
    const began = outcome === 'finished' || steps > 0;
    this.#options.totals.add(
      { model, part: plan.part, outcome },
      {
        promptTokens: began ? generation.promptTokens : 0,
        completionTokens: completionTokens(generation, steps),
        cachedTokens: began ? (answering.computed.cachedTokens ?? 0) : 0,
      },
    );
  }
}

function keysOf({ prompts, model, body }: Generation): number[] {
  const salt = `${model} ${typeof body.cache_salt === 'string' ? body.cache_salt : ''}`;
  return prompts.flatMap((prompt) => blockKeys(prompt, salt));
}

/** Where a stream ends before its end, in tokens, and how. */
interface StreamBreak {
  readonly at: number;
  readonly how: 'error' | 'cut' | 'stall' | undefined;
}

const whole: StreamBreak = { at: Number.POSITIVE_INFINITY, how: undefined };

function breakOf({ errorAfter, cutAfter, stall, stallAfter }: Faults): StreamBreak {
  const breaks: StreamBreak[] = [];
  if (errorAfter !== undefined) breaks.push({ at: errorAfter, how: 'error' });
  if (cutAfter !== undefined) breaks.push({ at: cutAfter, how: 'cut' });
  if (stall === 'stream') breaks.push({ at: stallAfter, how: 'stall' });
  return breaks.reduce((first, one) => (one.at < first.at ? one : first), whole);
}

async function answerWhole(call: EngineCall, body: string, faults: Faults): Promise<void> {
  const { response, pause } = call;
  const at = faults.cutAfter ?? (faults.stall === 'stream' ? faults.stallAfter : undefined);
  if (at === undefined) {
    answerJson(response, body);
    return;
  }
  const bytes = Buffer.from(body);
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': bytes.length });
  response.write(bytes.subarray(0, at));
  if (faults.cutAfter === undefined) await pause.forEver();
  await breakOff(call, faults);
}
