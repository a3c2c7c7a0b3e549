import type { Bus } from '@llm-gateway/bus';
import { type Fleet, poolName } from '@llm-gateway/fleet';
import { type Ask, type AskedPrompt, type Decision, GatewayError, routeDecide } from '@llm-gateway/protocol';
import type { Route, RouteTable } from '@llm-gateway/routing';
import { names } from '@llm-gateway/tracing';
import type { ElementMarks } from '../body/json-members.ts';
import type { TracedStep } from '../exchange/request-trace.ts';
import type { Leaving } from '../http/leaving.ts';
import { batched } from './batch.ts';
import type { DecisionNotes } from './decision-notes.ts';
import { isFollowed } from './followed-decision.ts';
import type { Leases } from './leases.ts';
import type { Load } from './load.ts';
import type { PromptSource, Prompts } from './prompts.ts';
import { isAway, type Routers } from './routers.ts';

/** Why a decision was made here instead of by a router. */
export type DegradedReason =
  | 'unreachable'
  | 'timeout'
  | 'generation'
  | 'failed'
  /**
   * The router named an instance that this ingress does not follow, or an endpoint that its config
   * does not have.
   */
  | 'not_followed';

export interface DeciderObserver {
  batch(size: number, durationMs: number): void;
  degraded(reason: DegradedReason): void;
}

interface DeciderParts {
  readonly ingress: string;
  readonly bus: Bus;
  readonly routers: Routers;
  /** The table in use, by which is probed. Each request brings its own. */
  readonly table: () => RouteTable;
  /** This process's own view of the instances, for when no router answers. */
  readonly fleet: Fleet;
  readonly load: Load;
  /** Null: every decision is asked for. */
  readonly leases: Leases | null;
  /** Null: the policy ignores prompts, and any router may be asked. */
  readonly prompts: Prompts | null;
  readonly timeoutMs: number;
  readonly observer: DeciderObserver;
  readonly notes?: DecisionNotes;
}

/** After so many unanswered batches in a row, routers are not asked until one answers a probe. */
const missesBeforeBreak = 3;
/** From the first miss on. */
const probeIntervalMs = 250;
/** Interval of probes without asks, so that a missing router is known before a request arrives. */
const restProbeIntervalMs = 1000;
/**
 * So many times the deadline of a decision such a probe has, for which nobody waits: a moment
 * without CPU is no outage.
 */
const restPatience = 10;
const maxBatch = 512;
/** Routers that one ask addresses by name before it goes to any router. */
const maxOwners = 2;
const maxKnownOwners = 100;
/** Size of a batch, or of its reply, without asks or decisions. */
const envelopeBytes = 1024;
/**
 * Size of an ask without its model and instances, with its prompt, and more than its decision
 * takes in the reply: two addresses.
 */
const askBaseBytes = 2048;
/** No character takes more in JSON. */
const maxCharacterBytes = 6;

/** The request to decide for; an `Exchange` fits. */
interface Asking extends PromptSource {
  readonly model: string | null;
  /** Filled when the policy needs to know it. */
  prompt: AskedPrompt | undefined;
  /** Filled when instances know the model by another name. */
  upstreamModel: string | null;
}

/** Where the routing policy sends a request; what instances call its model is noted on it. */
export function routeOf(asking: Pick<Asking, 'model' | 'upstreamModel'>, table: RouteTable): Route {
  const route = table.choose(asking.model, Math.random);
  if (!table.renamesLocally) return route;
  const row = route.route === 'internal' ? table.endpoints[route.endpoint ?? -1] : undefined;
  asking.upstreamModel = asking.model && row?.upstreamModel ? row.upstreamModel : null;
  return route;
}

/** Maximum size of an ask, or of the decision for it. */
function askBytes({ model, excluded, avoided = [] }: Ask): number {
  let characters = model?.length ?? 0;
  for (const id of excluded) characters += id.length + 1;
  for (const id of avoided) characters += id.length + 1;
  return askBaseBytes + maxCharacterBytes * characters;
}

/** An ask that is a step of a trace. */
interface TracedAsk {
  readonly ask: Ask;
  readonly step: TracedStep;
}

function askOf(given: Ask | TracedAsk): Ask {
  return 'ask' in given ? given.ask : given;
}

type AskTogether = (ask: Ask | TracedAsk, signal: AbortSignal) => Promise<Decision>;

/** Undefined when none of them is traced. */
function stepsOf(asks: readonly (Ask | TracedAsk)[]): TracedStep[] | undefined {
  let steps: TracedStep[] | undefined;
  for (const ask of asks) {
    if (!('ask' in ask)) continue;
    steps ??= [];
    steps.push(ask.step);
  }
  return steps;
}

/**
 * Asks the routers, and decides itself with the same code when they do not answer: a request never
 * fails for the want of a router. Questions of one turn of the event loop travel as one message.
 */
export class Decider implements Disposable {
  readonly #parts: DeciderParts;
  /**
   * What is asked by one table of one router, or of any, goes together; those of tables that nobody
   * uses any more are let go.
   */
  readonly #asks = new WeakMap<RouteTable, Map<string, AskTogether>>();
  #misses = 0;
  /** Routers are not asked until one answers a probe. */
  #broken = false;
  /** Whether a router answered since the last probe was due. */
  #answered = false;
  #probe: NodeJS.Timeout | undefined;
  #probing = false;
  #closed = false;

  constructor(parts: DeciderParts) {
    this.#parts = parts;
    this.#scheduleProbe(probeIntervalMs);
  }

  /** What is to be noted of bodies as they are read; null: nothing. */
  get marks(): ElementMarks | null {
    return this.#parts.prompts?.marks ?? null;
  }

  /** Whether decisions are made here at the moment, or would be if there were any. */
  get degraded(): boolean {
    return this.#misses > 0 || !this.#parts.bus.connected;
  }

  /**
   * The decision for a request of this model, when it takes no message: the routing policy is
   * applied here, by the code that routers have, and an instance comes from the picks that a router
   * gave in advance. Otherwise what is left to ask of `decide`.
   */
  tryDecide(exchange: Asking, table: RouteTable): Decision | Ask {
    const { leases, prompts } = this.#parts;
    const { model: asked } = exchange;
    // Which row it is must be known here where the model's name depends on it.
    if (leases === null && !table.renamesLocally) {
      if (prompts === null) return { model: asked, stage: 'route', excluded: [] };
      exchange.prompt = prompts.of(exchange);
      return { model: asked, stage: 'route', excluded: [], prompt: exchange.prompt };
    }
    const route = routeOf(exchange, table);
    return route.route === 'internal' ? this.tryInstance(exchange) : route;
  }

  /** The same of a request whose way is known: to an instance. */
  tryInstance(exchange: Asking): Decision | Ask {
    const { leases, prompts, bus } = this.#parts;
    const model = exchange.upstreamModel ?? exchange.model;
    if (prompts !== null) {
      const prompt = prompts.of(exchange);
      exchange.prompt = prompt;
      // What is chosen in advance is chosen without it.
      if (leases === null || prompts.matters(prompt)) return { model, stage: 'internal', excluded: [], prompt };
    }
    const leased = leases === null || this.#broken || !bus.connected ? undefined : leases.take(model);
    return leased ?? { model, stage: 'internal', excluded: [] };
  }

  /** Throws `client_closed` when `signal` aborts before there is a decision, and nothing else. */
  async decide(
    ask: Ask,
    table: RouteTable,
    { signal, step = null }: { signal: Leaving; step?: TracedStep | null },
  ): Promise<Decision> {
    const { bus, fleet } = this.#parts;
    const here = (reason: DegradedReason) => this.#decideHere(ask, table, { reason, step });
    if (this.#broken || !bus.connected) return here('unreachable');
    try {
      const decision = await this.#askOf(table, step === null ? ask : { ask, step }, signal.abortSignal);
      if (decision.route === 'failed') return here('failed');
      return isFollowed(decision, { fleet, table }) ? decision : here('not_followed');
    } catch (error) {
      if (signal.aborted) throw error;
      return here(degradedReason(error));
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#probe);
  }

  /**
   * The pool's owner sees all choices for it in their order. When it is away, the next in the order
   * is asked, and then any router.
   */
  async #askOf(table: RouteTable, ask: Ask | TracedAsk, signal: AbortSignal): Promise<Decision> {
    const { prompts, routers, fleet } = this.#parts;
    for (let tries = 0; prompts !== null && tries < maxOwners; tries++) {
      const now = performance.now();
      const owner = routers.ownerOf(poolName(fleet.poolOf(askOf(ask).model, now)), table.generation, now);
      if (owner === undefined) break;
      try {
        return await this.#asksTo(owner, table)(ask, signal);
      } catch (error) {
        if (signal.aborted || !isAway(error)) throw error;
        routers.drop(owner);
      }
    }
    return await this.#asksTo('', table)(ask, signal);
  }

  /** @param owner empty: any router */
  #asksTo(owner: string, table: RouteTable): AskTogether {
    let known = this.#asks.get(table);
    if (known === undefined) {
      known = new Map();
      this.#asks.set(table, known);
    }
    const asks = known.get(owner);
    if (asks !== undefined) return asks;
    const made = batched((asks: (Ask | TracedAsk)[]) => this.#askBatch(asks, table, owner), {
      maxBatch,
      maxBytes: () => this.#parts.bus.maxBytes - envelopeBytes,
      bytesOf: (ask) => askBytes(askOf(ask)),
    });
    if (known.size > maxKnownOwners) known.clear();
    known.set(owner, made);
    return made;
  }

  #askBatch(asks: (Ask | TracedAsk)[], table: RouteTable, owner: string): Promise<Decision[]> {
    // The previous batch was the last to time out: these asks must not each wait for another timeout.
    if (this.#broken) throw new GatewayError('bus_unavailable', 'no router answered the last batches');
    return this.#askRouter(asks, table, { owner });
  }

  async #askRouter(
    given: (Ask | TracedAsk)[],
    { generation }: RouteTable,
    { owner: named = '', timeoutMs = this.#parts.timeoutMs }: { owner?: string; timeoutMs?: number } = {},
  ): Promise<Decision[]> {
    const { ingress, bus, routers, load, observer, notes } = this.#parts;
    const steps = stepsOf(given);
    // Without steps there are asks alone.
    const asks = steps === undefined ? (given as Ask[]) : given.map(askOf);
    const traces = steps?.map(({ traceparent }) => traceparent);
    const startedAtMs = performance.now();
    // While routers hold different configs, those that hold this one are asked.
    const group = routers.holding(generation, startedAtMs) === 'some' ? generation : undefined;
    const owner = named === '' ? group : named;
    try {
      const reply = await bus.request(routeDecide, { ingress, generation, asks }, { timeoutMs, owner, traces });
      load.saw(reply.router, reply.sequence);
      if (reply.generation !== generation || reply.decisions.length !== asks.length) throw new OtherGeneration();
      this.#misses = 0;
      this.#broken = false;
      this.#answered = true;
      for (const { span } of steps ?? []) {
        span.set({ [names.decisionBy]: 'router', [names.router]: reply.router, [names.batch]: asks.length });
      }
      if (notes?.on) {
        const by = { by: reply.router, inAdvance: false };
        for (const decision of reply.decisions) notes.note(decision, by);
      }
      if (asks.length > 0) observer.batch(asks.length, performance.now() - startedAtMs);
      return reply.decisions;
    } catch (error) {
      // Another one is asked before it counts.
      if (named === '' || !isAway(error)) this.#missed();
      throw error;
    }
  }

  #missed(): void {
    this.#misses++;
    if (this.#misses >= missesBeforeBreak) this.#broken = true;
    if (!this.#probing) this.#scheduleProbe(probeIntervalMs);
  }

  /** There is always one probe that is due or under way. */
  #scheduleProbe(waitMs: number): void {
    if (this.#closed) return;
    clearTimeout(this.#probe);
    this.#probe = setTimeout(() => this.#look(), waitMs).unref();
  }

  #look(): void {
    if (this.#answered && this.#misses === 0) {
      this.#answered = false;
      this.#scheduleProbe(restProbeIntervalMs);
      return;
    }
    this.#probing = true;
    const next = () => {
      this.#probing = false;
      this.#scheduleProbe(this.#misses === 0 ? restProbeIntervalMs : probeIntervalMs);
    };
    const { table, timeoutMs } = this.#parts;
    // An empty batch: answered like any other, and no request waits for it.
    this.#askRouter([], table(), { timeoutMs: this.#misses === 0 ? restPatience * timeoutMs : timeoutMs }).then(
      next,
      next,
    );
  }

  #decideHere(
    ask: Ask,
    table: RouteTable,
    { reason, step }: { reason: DegradedReason; step: TracedStep | null },
  ): Decision {
    const { ingress, fleet, observer, notes } = this.#parts;
    observer.degraded(reason);
    step?.span.set({ [names.decisionBy]: 'ingress', [names.degraded]: reason });
    const decision = fleet.decide(table, ask, { now: performance.now(), random: Math.random });
    if (!notes?.on) return decision;
    // The fleet gives one object for all requests to an instance, and picks are those as well.
    const own = { ...decision };
    notes.note(own, { by: ingress, inAdvance: false });
    return own;
  }
}

/** The router holds another route config: its endpoints are not ours. */
class OtherGeneration extends Error {}

function degradedReason(error: unknown): DegradedReason {
  if (error instanceof OtherGeneration) return 'generation';
  return error instanceof GatewayError && error.code === 'bus_timeout' ? 'timeout' : 'unreachable';
}
