import {
  type Ask,
  type AskedPrompt,
  type Decision,
  type EngineFigures,
  type Expectation,
  type ExplainedCandidate,
  type ExplainedPool,
  type Instance,
  type InstanceAddress,
  isSameInstance,
  isTakenOut,
  type LoadReport,
  type OutcomeReport,
  type Role,
  servedModels,
} from '@llm-gateway/protocol';
import type { RouteTable } from '@llm-gateway/routing';
import type { Caches } from './caches.ts';
import { EngineLoad, type EngineReportResult } from './engine-load.ts';
import { Health } from './health.ts';
import { LoadLedger, type ReplyTo } from './load-ledger.ts';
import { ModelGroups } from './model-groups.ts';
import { Pool, serves } from './pool.ts';
import { hashOf } from './rendezvous.ts';
import { ServedModels } from './served-models.ts';

/**
 * What a request needs: one instance, a prefill/decode pair at once, or a prefill first and a
 * decode when it has ended.
 */
export type FleetMode = 'neutral' | 'batched' | 'staged';
export type SchedulingPolicy = 'round-robin' | 'load-balance' | 'cache-aware';
/**
 * What a process can choose by that knows only itself: `affinity` keeps sessions together, and
 * takes all others in turn.
 */
export type FleetPolicy = SchedulingPolicy | 'affinity';

/** The mode that the flags of `pdOptions` ask for. */
export function fleetMode(options: { pdDisaggProtocol: string; separatePdScheduling: boolean }): FleetMode {
  if (options.pdDisaggProtocol === '') return 'neutral';
  return options.separatePdScheduling ? 'staged' : 'batched';
}

/**
 * Whether the P/D protocol that the flags name has decode engines turn to the `kv_transfer` address
 * of the prefill.
 */
export function needsKvAddress({ pdDisaggProtocol }: { pdDisaggProtocol: string }): boolean {
  return pdDisaggProtocol === 'vllm-kvt';
}

export interface FleetOptions {
  readonly mode: FleetMode;
  readonly policy: FleetPolicy;
  /** What the instances have cached; for `cache-aware`, and whoever made it tells it of other routers. */
  readonly caches?: Caches;
  /** An instance without a KV address is none for prefills. */
  readonly kvAddressNeeded?: boolean;
  /** Hears of each instance that is left out of the prefills for it, once as long as it lives unchanged. */
  readonly onKvAddressMissing?: (instance: string) => void;
  /** The router id in its replies; empty in an ingress that decides for itself. */
  readonly self?: string;
  /** How long a new or readmitted instance is ramped up unless in turn; 0, the default: not at all. */
  readonly slowStartMs?: number;
  /** Called for each instance that failed too often, with how long it is left alone. See `Health.spared`. */
  readonly onEject?: (ejection: Ejection) => void;
}

export interface Ejection {
  readonly instance: string;
  readonly durationMs: number;
  /** False: its pools cannot spare it, so it is chosen last instead. */
  readonly spared: boolean;
}

export interface DecideContext {
  /** Monotonic milliseconds. */
  readonly now: number;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  /**
   * Whom the reply goes to and its sequence, see `loadReport.seen`; left out when the caller keeps
   * its own counts.
   */
  readonly reply?: ReplyTo;
}

/** Which pool picks are asked of, by `LeaseQuery`, and how many. */
export interface LeaseWish {
  readonly role: Role;
  readonly model: string | null;
  readonly count: number;
}

/** An instance that a lease named, as this process knows it. */
export interface Candidate {
  readonly address: InstanceAddress;
  /** The answer that names it alone; the same object each time. */
  readonly decision: Decision;
}

/** An instance that others are preferred to, and when that changes by itself. */
export interface Unwell {
  readonly id: string;
  readonly state: 'ejected' | 'suspect' | 'probing' | 'busy';
  readonly forMs: number;
}

/**
 * Instances of one role that this fleet's mode needs; `suspect` and `ejected` include those that
 * are being probed.
 */
export interface RoleCount {
  readonly role: Role;
  readonly live: number;
  readonly suspect: number;
  readonly ejected: number;
}

interface Member extends Candidate {
  readonly instance: Instance;
  readonly health: Health;
  /** Its name in `Caches`, and for sessions. */
  readonly number: number;
  readonly hash: number;
  /** Its place in `#sorted` and `#scores`. */
  slot: number;
  /** When time changes its health, or what is known of its engine, next. */
  changeAt: number;
  /** What its engine says of itself; null: it never did. */
  engine: EngineLoad | null;
  /** What its engine does for others, in bytes of prompts. */
  elsewhereBytes: number;
  /** Of the ledger, as it was scored by. */
  waitingBytes: number;
}

/**
 * What a request in flight weighs beside bytes of prompts to be computed before a first token. Its
 * decode takes time from a prefill, but little: the unit of load is a request, and this many bytes
 * are as much as one.
 */
const requestBytes = 256;
/**
 * A prompt of somebody else is taken to be as long as ours were on average; this long before there
 * was one.
 */
const firstMeanPromptBytes = 2048;
/** The mean follows about so many of the last prompts. */
const meanPrompts = 64;
/**
 * So many instances are asked at most whether this prompt fits into their memory; further ones are
 * taken to have room.
 */
const maxRoomChecks = 8;
/** A fully cached prompt is not for nothing. */
const minWaitingBytes = 64;
/**
 * An instance takes a session of its own as long as it has at most so much more in flight than the
 * mean, and one.
 */
const affinityLoadFactor = 1.25;
/** What an ask says is bounded, so that no prompt makes a live instance look busy. */
const maxPromptBytes = 2 ** 30;

/**
 * A score is the load (0 in turn) plus these, so that one scan for the lowest score prefers in this order:
 * live, busy, what the request avoids, suspect, ejected, and what it has already failed on.
 */
const busyScore = 2 ** 31;
const avoidedScore = 2 ** 32;
const suspectScore = 2 ** 33;
const ejectedScore = 2 ** 34;
const excludedScore = 2 ** 35;
/** The load of an instance never makes it worse than one that is busy. */
const maxLoadScore = busyScore - 1;
/** Is never chosen. */
const impossibleScore = Number.POSITIVE_INFINITY;

/** What of an ask the choice of one instance depends on. */
type Wish = Pick<Ask, 'model' | 'excluded' | 'avoided' | 'prompt'>;

interface Choice {
  readonly member: Member;
  /** Null for policies that do not ask what is cached. */
  readonly expected: Expectation | null;
}

const none: Decision = { route: 'none' };

const rolesOf: Readonly<Record<FleetMode, readonly Role[]>> = {
  neutral: ['neutral'],
  batched: ['prefill', 'decode'],
  staged: ['prefill', 'decode'],
};

/** The live set of instances, their load and their health; decides which of them takes a request. */
export class Fleet {
  readonly #mode: FleetMode;
  /** Whether the load is a part of the score. */
  readonly #balanced: boolean;
  readonly #counted: boolean;
  readonly #sticky: boolean;
  readonly #caches: Caches | null;
  readonly #kvAddressNeeded: boolean;
  readonly #onKvAddressMissing: (instance: string) => void;
  readonly #onEject: (ejection: Ejection) => void;
  readonly #slowStartMs: number;
  readonly #ledger: LoadLedger;
  readonly #members = new Map<string, Member>();
  readonly #served = new ServedModels();
  /** Whether there has been an instance that declared no model. */
  #servedUndeclared = false;
  /**
   * Rebuilt on the first use after a change, with `#scores`, `#models`, `#unpaired` and what
   * `#pools` hold.
   */
  #sorted: Member[] = [];
  #scores = new Float64Array(0);
  #inFlight = new Float64Array(0);
  #hashes = new Uint32Array(0);
  /** How many members say how much memory they have left. */
  #measured = 0;
  /** Slots whose scores are lowered for the prompt that is being decided, and their scores before. */
  readonly #discounted: readonly [slots: number[], before: number[]] = [[], []];
  #meanPromptBytes = firstMeanPromptBytes;
  /** Members whose load counts for more than it is, and members by their number in `Caches`. */
  readonly #weighted = new Set<Member>();
  readonly #numbered: (Member | undefined)[] = [];
  #models = new Set<string>();
  /**
   * Prefill instances whose model no decode instance serves: a request that names none must not
   * begin there.
   */
  #unpaired: readonly Member[] = [];
  /** Made when first asked for after a change. */
  #groups: ModelGroups | null = null;
  #stale = false;
  /**
   * Per role, by `Pool.model`; but for null made when first asked for, so at most one for each
   * model of `#models` and `#served`, and two more.
   */
  readonly #pools: Readonly<Record<Role, Map<string | null, Pool>>> = {
    neutral: new Map(),
    prefill: new Map(),
    decode: new Map(),
  };
  /** Members that are not live and that their pools can spare: never more than half of a pool. */
  readonly #ejected = new Set<Member>();
  /** Members that wait for a probe, the longest first. */
  readonly #due = new Set<Member>();
  /** Members that came after the first list: they are ramped up from the next decision on. */
  readonly #joined = new Set<Member>();
  #listed = false;
  /** Members that time alone will change, and a lower bound of when. */
  readonly #unsettled = new Set<Member>();
  #changeDue = Number.POSITIVE_INFINITY;

  constructor(options: FleetOptions) {
    this.#mode = options.mode;
    this.#balanced = options.policy === 'load-balance' || options.policy === 'cache-aware';
    this.#counted = options.policy !== 'round-robin';
    this.#sticky = options.policy === 'cache-aware' || options.policy === 'affinity';
    this.#caches = options.policy === 'cache-aware' ? (options.caches ?? null) : null;
    this.#kvAddressNeeded = options.kvAddressNeeded ?? false;
    this.#onKvAddressMissing = options.onKvAddressMissing ?? (() => {});
    this.#onEject = options.onEject ?? (() => {});
    this.#slowStartMs = this.#balanced ? (options.slowStartMs ?? 0) : 0;
    for (const role of rolesOf[options.mode]) this.#pools[role].set(null, new Pool(role, null));
    this.#ledger = new LoadLedger(options.self ?? '', (id) => {
      const member = this.#members.get(id);
      if (member === undefined) return;
      member.engine?.observe(this.#ledger.inFlight(id));
      this.#score(member);
    });
  }

  /** All instances there are now, whatever was known before. */
  reset(instances: readonly Instance[]): void {
    const kept = new Set(instances.map((instance) => instance.id));
    for (const id of this.#members.keys()) if (!kept.has(id)) this.#leave(id);
    for (const instance of instances) this.#upsert(instance);
    // Whoever was there before this process is not new.
    if (!this.#listed) this.#joined.clear();
    this.#listed = true;
  }

  change(upserts: readonly Instance[], removals: readonly string[]): void {
    for (const id of removals) this.#leave(id);
    for (const instance of upserts) this.#upsert(instance);
  }

  /** What one ingress has in flight. Ingresses that stop reporting are forgotten after some seconds. */
  report(report: LoadReport, now: number): void {
    if (this.#counted) this.#ledger.report(report, now);
  }

  /**
   * What happened at instances; those that fail again and again are ejected, or suspect where their
   * pools cannot spare them.
   */
  outcomes(report: OutcomeReport, context: { now: number; random: () => number }): void {
    const { now, random } = context;
    this.#refresh(now);
    for (const outcome of report.outcomes) {
      const member = this.#members.get(outcome.instance);
      if (member === undefined) continue;
      if (outcome.expectedBytes !== undefined) {
        this.#caches?.observe(outcome.instance, { expected: outcome.expectedBytes, found: outcome.foundBytes ?? 0 });
      }
      if (member.health.observe(outcome, now, this.#ledger.inFlight(outcome.instance))) {
        const spared = this.#canSpare(member);
        const durationMs = member.health.eject(now, { random, spared });
        this.#onEject({ instance: member.instance.id, durationMs, spared });
      }
      this.#settle(member, now);
    }
  }

  /**
   * What an engine says of itself, as `reporter` read it. It counts until the next report, or until
   * it is too old; a report of an instance that is not known here is ignored.
   */
  engineReport(
    { reporter, instance, figures }: { reporter: string; instance: string; figures: EngineFigures },
    now: number,
  ): EngineReportResult {
    const member = this.#members.get(instance);
    if (member === undefined) return 'unknown_instance';
    member.engine ??= new EngineLoad();
    const { engine } = member;
    if (!engine.accepts(reporter, now)) return 'other_reporter';
    const measured = Number(engine.isMeasured);
    const isAnew = engine.take(reporter, figures, { inFlight: this.#ledger.inFlight(instance), now });
    this.#measured += Number(engine.isMeasured) - measured;
    // What it had cached was of the process before.
    if (isAnew) this.#caches?.empty(instance);
    if (engine.capacityBytes > 0) this.#caches?.learnCapacity(instance, engine.capacityBytes);
    this.#weigh(member, engine);
    this.#settle(member, now);
    return 'taken';
  }

  /**
   * Decides one ask. Cost does not grow with the number of instances beyond one pass over an array
   * of numbers.
   */
  decide(table: RouteTable, ask: Ask, context: DecideContext): Decision {
    if (ask.stage === 'route') {
      const route = table.choose(ask.model, context.random);
      if (route.route !== 'internal') return route;
    }
    this.#refresh(context.now);
    this.#ledger.expire(context.now);
    if (ask.stage === 'decode') return decisionFor(this.#choose('decode', ask, context));
    if (this.#mode === 'neutral') return decisionFor(this.#choose('neutral', ask, context));
    return this.#choosePair(ask, context);
  }

  /**
   * Picks in advance for requests to come, in their order: instances as `decide` would choose them
   * one after the other. Fewer than asked for where nothing live and not busy is left, and none
   * while one of the pool waits for a probe: those choices are for requests that are there. So are
   * pairs.
   */
  lease({ role, model, count }: LeaseWish, { now, reply }: Omit<DecideContext, 'random'>): readonly InstanceAddress[] {
    this.#refresh(now);
    this.#ledger.expire(now);
    if (this.#mode !== 'neutral' || role !== 'neutral') return [];
    const pool = this.#poolOf(role, model === '' && this.#models.size > 0 ? '' : this.#poolKey(model), now);
    if (this.#awaitsProbe(pool)) return [];
    const picks: InstanceAddress[] = [];
    while (picks.length < count) {
      const member = this.#sorted[pool.choose(this.#scores)];
      if (member === undefined || (this.#scores[member.slot] ?? 0) >= busyScore) break;
      if (this.#balanced && reply !== undefined) this.#ledger.lend(member.instance.id, reply, now);
      picks.push(member.address);
    }
    return picks;
  }

  /**
   * The pool that a request for the model is served from, as `LeaseWish.model` names it. There are
   * no more than models that instances have named and two, whatever clients ask for.
   */
  poolOf(model: string | null, now: number): string | null {
    this.#refresh(now);
    return this.#poolKey(model);
  }

  /** The name of the model that stands for all that the instances of this one serve; see `ModelGroups`. */
  groupOf(model: string | null, now: number): string | null {
    this.#refresh(now);
    this.#groups ??= new ModelGroups(this.#sorted.map(({ instance }) => instance));
    return this.#groups.of(this.#poolKey(model));
  }

  /**
   * How many instances take this role for a model or group; those that fail or are taken out only
   * where no others are left.
   */
  serving(role: Role, model: string | null, now: number): number {
    this.#refresh(now);
    const pool = this.#poolOf(role, model === '' && this.#models.size > 0 ? '' : this.#poolKey(model), now);
    let well = 0;
    let usable = 0;
    for (const slot of pool.slots) {
      const score = this.#scores[slot] ?? impossibleScore;
      if (score < suspectScore) well++;
      if (score !== impossibleScore) usable++;
    }
    return well > 0 ? well : usable;
  }

  /** The roles of which a request of this fleet's mode needs an instance each. */
  get roles(): readonly Role[] {
    return rolesOf[this.#mode];
  }

  /** The instance that a pick names, when it is known here at the same address and serves the pool. */
  candidate(given: InstanceAddress, { role, model }: Pick<LeaseWish, 'role' | 'model'>): Candidate | undefined {
    const member = this.#members.get(given.id);
    if (member === undefined || !isSameAddress(given, member.address)) return undefined;
    const isAvailable = member.instance.roles.includes(role) && !isTakenOut(member.instance);
    return isAvailable && serves(member.instance, model) ? member : undefined;
  }

  /**
   * Whether nothing that is known here speaks against it: it is there as it was, and neither
   * ejected, suspect nor busy.
   */
  isUsable(candidate: Candidate, now: number): boolean {
    const member = this.#members.get(candidate.address.id);
    if (member !== candidate || member === undefined) return false;
    // One whose time is over is for routers to try: they make the probes.
    const { state, until, busyUntil } = member.health;
    return (state === 'live' || now >= until) && now >= busyUntil;
  }

  /** Where the instance is; undefined when there is none of this id. */
  address(id: string): InstanceAddress | undefined {
    return this.#members.get(id)?.address;
  }

  /** Of `instances` those that are neither ejected nor suspect. */
  liveInstances(): readonly Instance[] {
    return this.instances().filter(({ id }) => this.#members.get(id)?.health.state === 'live');
  }

  /**
   * Whether an instance names the model, or has named it since this process began; true while there
   * is one that names none.
   */
  hasNamed(model: string | null): boolean {
    if (this.#served.has(model)) return true;
    for (const { instance } of this.#members.values()) if (servedModels(instance) === null) return true;
    return false;
  }

  /**
   * Whether an instance may have served the model since this process began: it named it, or one
   * declared none. True while no instance is known.
   */
  hasServed(model: string | null): boolean {
    return this.#servedUndeclared || this.#served.has(model);
  }

  /** Whether an instance names the model now; true for no model, and while none names any. */
  names(model: string | null, now: number): boolean {
    this.#refresh(now);
    return !model || this.#models.size === 0 || this.#models.has(model);
  }

  /** The instances that this fleet's mode can choose, in no particular order. */
  instances(): readonly Instance[] {
    const roles = rolesOf[this.#mode];
    return [...this.#members.values()]
      .map((member) => member.instance)
      .filter((instance) => instance.roles.some((role) => roles.includes(role)));
  }

  counts(now: number): readonly RoleCount[] {
    this.#refresh(now);
    return rolesOf[this.#mode].map((role) => {
      const members = this.#sorted.filter((member) => member.instance.roles.includes(role));
      const live = members.filter(({ health }) => health.state === 'live').length;
      const suspect = members.filter(({ health }) => health.suspect).length;
      return { role, live, suspect, ejected: members.length - live - suspect };
    });
  }

  /** Instances that are not live or are busy, at most `max`. */
  unwell(now: number, max: number): readonly Unwell[] {
    this.#refresh(now);
    const found: Unwell[] = [];
    for (const { instance, health } of this.#members.values()) {
      if (found.length >= max) break;
      const { state, until, busyUntil } = health;
      const shown = stateOf(health, now);
      if (shown === 'live') continue;
      found.push({ id: instance.id, state: shown, forMs: Math.max(0, (state === 'live' ? busyUntil : until) - now) });
    }
    return found;
  }

  /**
   * Which instances `decide` would choose now for an ask that goes to instances, and how the others
   * compare: a pool for each role, the best candidate first, at most `max` of each. Nothing is
   * chosen, reserved or counted.
   */
  explain(ask: Wish, { now, max }: { readonly now: number; readonly max: number }): readonly ExplainedPool[] {
    this.#refresh(now);
    this.#ledger.expire(now);
    if (this.#mode === 'neutral') return [this.#explainPool('neutral', ask, { now, max })];
    const prefill = this.#explainPool('prefill', ask, { now, max });
    const member = prefill.chosen === null ? undefined : this.#members.get(prefill.chosen);
    const declared = member === undefined || ask.model ? '' : (servedModels(member.instance)?.[0] ?? '');
    const avoided = [...(ask.avoided ?? []), ...(prefill.chosen === null ? [] : [prefill.chosen])];
    const decode = this.#explainPool('decode', { ...ask, model: declared || ask.model, avoided }, { now, max });
    // Nothing is prefilled that nobody could decode.
    return decode.chosen === null ? [{ ...prefill, chosen: null }, decode] : [prefill, decode];
  }

  #explainPool(role: Role, wish: Wish, { now, max }: { readonly now: number; readonly max: number }): ExplainedPool {
    const pool = this.#pool(role, wish.model, now);
    const prompt = role === 'decode' ? undefined : wish.prompt;
    const holders = prompt === undefined ? undefined : this.#caches?.match(prompt);
    const probe = this.#probeIn(pool, wish);
    const bySession = probe === undefined ? this.#placeBySession(pool, wish, holders) : -1;
    const place = bySession === -1 ? this.#placeByScore(pool, wish, holders) : bySession;
    const chosen = probe ?? (place === -1 ? undefined : this.#sorted[pool.slots[place] as number]);
    const unpaired = this.#unpairedIn(pool);
    const failed = new Set([...wish.excluded, ...(wish.avoided ?? [])]);
    const ranked = this.#sorted.map((member) => {
      const { instance } = member;
      const out = outOf(instance, pool, unpaired.includes(member));
      this.#score(member, prompt);
      const score = out === undefined ? (this.#scores[member.slot] ?? 0) : impossibleScore;
      this.#score(member);
      return { member, out, score: failed.has(instance.id) ? score + excludedScore : score };
    });
    ranked.sort((a, b) => Number(b.member === chosen) - Number(a.member === chosen) || order(a.score, b.score));
    const why =
      probe !== undefined
        ? 'probe'
        : chosen === undefined || !this.#counted
          ? 'turn'
          : this.#expect(chosen, prompt, bySession !== -1, pool).why;
    return {
      role,
      model: pool.model,
      chosen: chosen?.instance.id ?? null,
      why,
      total: ranked.length,
      candidates: ranked.slice(0, max).map(({ member, out }): ExplainedCandidate => {
        const { cached, elsewhere, cost } = this.#costOf(member, prompt);
        const { id } = member.instance;
        const factor = member.health.ramp * member.health.penalty;
        return {
          instance: id,
          state: stateOf(member.health, now),
          ...(out !== undefined && { out }),
          ...(this.#counted && { inFlight: this.#ledger.inFlight(id) }),
          ...(this.#balanced && { waiting: this.#ledger.waiting(id), cached, cost }),
          ...(this.#balanced && elsewhere > 0 && { elsewhere: Math.round(elsewhere) }),
          ...(this.#balanced && factor > 1 && { factor: Math.round(factor * 100) / 100 }),
        };
      }),
    };
  }

  /** Whether somebody ordered the instance out, so that it gets no new request. */
  isTakenOut(id: string): boolean {
    const member = this.#members.get(id);
    return member !== undefined && isTakenOut(member.instance);
  }

  /**
   * Whether there is a prefill and a decode instance that serve the same model. Always false in
   * neutral mode.
   */
  hasCompletePair(): boolean {
    if (this.#mode === 'neutral') return false;
    const instances = this.instances();
    const prefills = instances.filter(({ roles }) => roles.includes('prefill'));
    const decoded = namesOf(instances.filter(({ roles }) => roles.includes('decode')));
    return prefills.some((prefill) => isDecoded(prefill, decoded));
  }

  /**
   * The two serve the same model, and are different instances where there is a choice: static
   * endpoints have both roles.
   */
  #choosePair(ask: Ask, context: DecideContext): Decision {
    // Nothing is prefilled that nobody could decode.
    if (this.#pool('decode', ask.model, context.now).slots.length === 0) return none;
    const choice = this.#choose('prefill', ask, context);
    if (choice === undefined) return none;
    const { member: prefill, expected } = choice;
    const declared = ask.model ? '' : (servedModels(prefill.instance)?.[0] ?? '');
    const pair = { route: 'pair' as const, prefill: prefill.address, ...(expected !== null && { expected }) };
    if (this.#mode === 'staged') {
      return declared === '' ? { ...pair, decode: null } : { ...pair, decode: null, model: declared };
    }
    const avoided = [...(ask.avoided ?? []), prefill.instance.id];
    const decode = this.#choose('decode', { ...ask, model: declared || ask.model, avoided }, context);
    return decode === undefined ? none : { ...pair, decode: decode.member.address };
  }

  #choose(role: Role, wish: Wish, context: DecideContext): Choice | undefined {
    const pool = this.#pool(role, wish.model, context.now);
    // Nothing of the prompt is computed where it is decoded.
    const prompt = role === 'decode' ? undefined : wish.prompt;
    const holders = prompt === undefined ? undefined : this.#caches?.match(prompt);
    const probe = this.#probeIn(pool, wish);
    const bySession = probe === undefined ? this.#placeBySession(pool, wish, holders) : -1;
    const place = probe !== undefined || bySession !== -1 ? bySession : this.#placeByScore(pool, wish, holders);
    const member = probe ?? (place === -1 ? undefined : this.#sorted[pool.take(place)]);
    if (member === undefined) return undefined;
    if (probe !== undefined) pool.countProbe();
    if (member.health.state === 'due') {
      member.health.probe(context.now);
      this.#settle(member, context.now);
    }
    const expected = holders === undefined ? null : this.#expect(member, wish.prompt, bySession !== -1, pool);
    if (this.#counted && context.reply !== undefined) {
      const waiting =
        prompt === undefined ? 0 : Math.max(promptBytes(prompt) - (expected?.cached ?? 0), minWaitingBytes);
      if (prompt !== undefined) this.#meanPromptBytes += (waiting - this.#meanPromptBytes) / meanPrompts;
      this.#ledger.choose(member.instance.id, context.reply, { now: context.now, waiting });
    }
    if (holders !== undefined) this.#caches?.place(member.instance.id, context.now);
    return { member, expected };
  }

  #expect(member: Member, prompt: AskedPrompt | undefined, bySession: boolean, pool: Pool): Expectation {
    const { cached, cost } = this.#costOf(member, prompt);
    if (pool.slots.length === 1) return { cached, cost, why: 'only' };
    return { cached, cost, why: bySession ? 'affinity' : cached > 0 ? 'cache' : 'load' };
  }

  /** In bytes of prompts that are computed before a first token; `cached` of the last match. */
  #costOf(
    member: Member,
    prompt: AskedPrompt | undefined,
  ): { readonly cached: number; readonly elsewhere: number; readonly cost: number } {
    const { id } = member.instance;
    const bytes = prompt === undefined ? 0 : promptBytes(prompt);
    const cached = prompt === undefined ? 0 : Math.min(this.#caches?.cached(member.number) ?? 0, bytes);
    const elsewhere = member.elsewhereBytes + this.#lackingBytes(member, bytes - cached);
    const own = bytes - cached + this.#ledger.waiting(id) + requestBytes * this.#ledger.inFlight(id);
    return { cached, elsewhere, cost: own + elsewhere };
  }

  /**
   * Where nothing of the prompt is known to be cached, the requests of one session go to one
   * instance, as long as that has no more than its share.
   */
  #placeBySession(pool: Pool, { prompt, excluded, avoided = [] }: Wish, holders?: readonly number[]): number {
    const key = prompt?.affinity;
    if (!this.#sticky || key === undefined || (holders?.length ?? 0) > 0 || excluded.length + avoided.length > 0)
      return -1;
    const inFlight = this.#inFlight;
    let total = 1;
    for (const slot of pool.slots) total += inFlight[slot] as number;
    // One more, so that a fleet at rest does not part two requests of one session.
    const most = Math.ceil((affinityLoadFactor * total) / pool.slots.length) + 1;
    const unpaired = this.#unpairedIn(pool);
    return pool.bestBy(key, {
      scores: this.#scores,
      limit: busyScore,
      hashes: this.#hashes,
      hasRoom: (one) => (inFlight[one] as number) < most && !unpaired.includes(this.#sorted[one] as Member),
    });
  }

  /**
   * The member that this request is to be the probe of. A request that has failed before is none:
   * it gets the best there is.
   */
  #probeIn(pool: Pool, { excluded, avoided = [] }: Wish): Member | undefined {
    if (this.#due.size === 0 || excluded.length > 0 || !pool.mayProbe) return undefined;
    for (const member of this.#due) {
      if (!pool.takes(member.instance) || avoided.includes(member.instance.id)) continue;
      if (this.#unpairedIn(pool).includes(member)) continue;
      return member;
    }
    return undefined;
  }

  #awaitsProbe(pool: Pool): boolean {
    if (this.#due.size === 0 || !pool.mayProbe) return false;
    for (const member of this.#due) if (pool.takes(member.instance)) return true;
    return false;
  }

  #unpairedIn(pool: Pool): readonly Member[] {
    return pool.role === 'prefill' && pool.model === null ? this.#unpaired : [];
  }

  #placeByScore(pool: Pool, { excluded, avoided = [], prompt }: Wish, holders: readonly number[] = []): number {
    const unpaired = this.#unpairedIn(pool);
    const isPriced = prompt !== undefined && this.#balanced && holders.length + this.#weighted.size > 0;
    if (excluded.length + avoided.length + unpaired.length === 0 && !isPriced) {
      const place = pool.best(this.#scores);
      // What the others would lack makes them no better.
      if (this.#measured === 0 || prompt === undefined || !this.#lacksRoom(pool, place, prompt)) return place;
    }
    const raised = new Set<Member>();
    if (isPriced) {
      // What the prompt costs without a cache is the same for all others, and left out.
      for (const number of holders) {
        const member = this.#numbered[number];
        if (member !== undefined && !this.#weighted.has(member) && !this.#discount(member, prompt)) {
          raised.add(member);
          this.#score(member, prompt);
        }
      }
      for (const member of this.#weighted) {
        raised.add(member);
        this.#score(member, prompt);
      }
    }
    const raise = (member: Member | undefined, score: number): void => {
      if (member === undefined) return;
      raised.add(member);
      this.#scores[member.slot] = (this.#scores[member.slot] ?? 0) + score;
    };
    // Sets, because what is named twice is not worse for it.
    for (const id of new Set(excluded)) raise(this.#members.get(id), excludedScore);
    for (const id of new Set(avoided)) raise(this.#members.get(id), avoidedScore);
    for (const member of unpaired) raise(member, impossibleScore);
    const lowest = isPriced ? Number.NEGATIVE_INFINITY : 0;
    let place = pool.best(this.#scores, lowest);
    if (this.#measured > 0 && prompt !== undefined) {
      // Its score as it stands is for a prompt that fits into its memory. When this one does not,
      // its true score may be higher than that of another; those that are not looked at could only
      // be worse than their scores.
      for (let checks = 0; checks < maxRoomChecks && this.#lacksRoom(pool, place, prompt); checks++) {
        const member = this.#sorted[pool.slots[place] as number] as Member;
        if (raised.has(member)) break;
        raised.add(member);
        this.#score(member, prompt);
        place = pool.best(this.#scores, lowest);
      }
    }
    for (const member of raised) this.#score(member);
    const [slots, before] = this.#discounted;
    for (let at = slots.length - 1; at >= 0; at--) this.#scores[slots[at] as number] = before[at] as number;
    slots.length = 0;
    before.length = 0;
    return place;
  }

  /**
   * Takes off a score what of the prompt is cached there, which is all that the prompt changes of
   * the score of most holders. False: more is, and it has to be scored anew.
   */
  #discount(member: Member, prompt: AskedPrompt): boolean {
    const bytes = promptBytes(prompt);
    const cached = Math.min(this.#caches?.cached(member.number) ?? 0, bytes);
    if (this.#lackingBytes(member, bytes - cached) > 0) return false;
    const score = this.#scores[member.slot] as number;
    this.#discounted[0].push(member.slot);
    this.#discounted[1].push(score);
    this.#scores[member.slot] = score - cached / requestBytes;
    return true;
  }

  /**
   * Whether not all of the prompt fits into the free memory of the instance that has this place in
   * the pool.
   */
  #lacksRoom(pool: Pool, place: number, prompt: AskedPrompt): boolean {
    const member = this.#sorted[pool.slots[place] ?? -1];
    return member !== undefined && this.#lackingBytes(member, promptBytes(prompt)) > this.#lackingBytes(member, 0);
  }

  /**
   * Bytes of prompts, those that wait there and so many more, for which its engine has no memory
   * left. It makes room by giving up as much of what it has computed, which it computes again.
   */
  #lackingBytes({ engine, waitingBytes }: Member, bytes: number): number {
    return engine === null ? 0 : Math.max(0, waitingBytes + bytes - engine.freeBytes);
  }

  /**
   * What the engine does for others: their requests as ours, and prompts that nobody measured as
   * the mean of ours.
   */
  #weigh(member: Member, { others, othersWaiting, preempted }: EngineLoad): void {
    member.elsewhereBytes = requestBytes * others + this.#meanPromptBytes * (othersWaiting + preempted);
  }

  #pool(role: Role, model: string | null, now: number): Pool {
    return this.#poolOf(role, this.#poolKey(model), now);
  }

  #poolOf(role: Role, key: string | null, now: number): Pool {
    const pools = this.#pools[role];
    let pool = pools.get(key);
    if (pool === undefined) {
      pool = new Pool(role, key);
      pools.set(key, pool);
      this.#fill(pool, now);
    }
    return pool;
  }

  /**
   * Models that nobody has named share one pool: they are the client's word, and must not each make
   * one. A model whose instances are gone has one still: others do not serve it, and would call it
   * the client's mistake.
   */
  #poolKey(model: string | null): string | null {
    if (model === null || model === '' || this.#models.size === 0) return null;
    return this.#models.has(model) || this.#served.named(model) ? model : '';
  }

  /** Brings the arrays up to date with the members, and the members with the time. */
  #refresh(now: number): void {
    if (this.#stale) this.#rebuild(now);
    if (now < this.#changeDue) return;
    this.#changeDue = Number.POSITIVE_INFINITY;
    for (const member of this.#unsettled) {
      if (member.changeAt > now) {
        this.#changeDue = Math.min(this.#changeDue, member.changeAt);
      } else {
        member.health.tick(now);
        this.#expireEngine(member, now);
        this.#settle(member, now);
      }
    }
  }

  #expireEngine(member: Member, now: number): void {
    const { engine } = member;
    if (engine === null || now < engine.expiryAt) return;
    this.#measured -= Number(engine.isMeasured);
    engine.forget();
    this.#weigh(member, engine);
  }

  #rebuild(now: number): void {
    this.#stale = false;
    this.#groups = null;
    this.#sorted = [...this.#members.values()].sort((a, b) => (a.instance.id < b.instance.id ? -1 : 1));
    this.#scores = new Float64Array(this.#sorted.length);
    this.#inFlight = new Float64Array(this.#sorted.length);
    this.#hashes = Uint32Array.from(this.#sorted, (member) => member.hash);
    this.#weighted.clear();
    this.#models = namesOf(this.#sorted.map(({ instance }) => instance)).names;
    this.#unpaired = this.#findUnpaired();
    for (const [slot, member] of this.#sorted.entries()) {
      member.slot = slot;
      this.#score(member);
    }
    for (const member of this.#joined) {
      member.health.startRamp(now);
      this.#settle(member, now);
    }
    this.#joined.clear();
    for (const pools of Object.values(this.#pools)) {
      for (const [key, pool] of pools) {
        if (key === null || key === '' || this.#models.has(key)) this.#fill(pool, now);
        else pools.delete(key);
      }
    }
  }

  #findUnpaired(): readonly Member[] {
    const decodes = this.#sorted.filter(({ instance }) => instance.roles.includes('decode'));
    const decoded = namesOf(decodes.map(({ instance }) => instance));
    return this.#sorted.filter(({ instance }) => instance.roles.includes('prefill') && !isDecoded(instance, decoded));
  }

  /**
   * After a pool shrank, more than half of it may be ejected: it cannot spare those whose time is
   * over first.
   */
  #fill(pool: Pool, now: number): void {
    pool.fill(this.#sorted.map((member) => member.instance));
    const ejected = this.#ejectedIn(pool).sort((a, b) => a.health.until - b.health.until);
    const surplus = ejected.length - Math.floor(pool.slots.length / 2);
    for (const member of ejected.slice(0, Math.max(surplus, 0))) {
      member.health.spared = false;
      this.#settle(member, now);
    }
  }

  #ejectedIn(pool: Pool): Member[] {
    return [...this.#ejected].filter((member) => pool.takes(member.instance));
  }

  /** Whether each pool in use keeps at least half of its instances without this one. */
  #canSpare(member: Member): boolean {
    for (const pools of Object.values(this.#pools)) {
      for (const pool of pools.values()) {
        if (!pool.takes(member.instance)) continue;
        const others = this.#ejectedIn(pool).filter((ejected) => ejected !== member);
        if (others.length + 1 > Math.floor(pool.slots.length / 2)) return false;
      }
    }
    return true;
  }

  /** Takes a change of a member's health into its score and into what time will change next. */
  #settle(member: Member, now: number): void {
    const { health } = member;
    if (health.state === 'live' || health.suspect) this.#ejected.delete(member);
    else this.#ejected.add(member);
    if (health.state === 'due' && !isTakenOut(member.instance)) this.#due.add(member);
    else this.#due.delete(member);
    member.changeAt = Math.min(health.nextChange(now), member.engine?.expiryAt ?? Number.POSITIVE_INFINITY);
    this.#changeDue = Math.min(this.#changeDue, member.changeAt);
    if (member.changeAt === Number.POSITIVE_INFINITY) this.#unsettled.delete(member);
    else this.#unsettled.add(member);
    this.#score(member);
  }

  /** With a prompt: what the instance has to compute for it, compared with one that has nothing of it. */
  #score(member: Member, prompt?: AskedPrompt): void {
    if (this.#stale) return;
    const { health } = member;
    if (isTakenOut(member.instance)) {
      this.#scores[member.slot] = impossibleScore;
      return;
    }
    let score = 0;
    if (this.#counted) {
      const { id } = member.instance;
      const inFlight = this.#ledger.inFlight(id);
      const { engine } = member;
      this.#inFlight[member.slot] = inFlight + (engine?.others ?? 0);
      if (this.#balanced) {
        const bytes = prompt === undefined ? 0 : promptBytes(prompt);
        const cached = prompt === undefined ? 0 : Math.min(this.#caches?.cached(member.number) ?? 0, bytes);
        const uncached = bytes - cached;
        const waiting = this.#ledger.waiting(id);
        member.waitingBytes = waiting;
        const work = waiting + uncached + member.elsewhereBytes + this.#lackingBytes(member, uncached);
        const load = (inFlight + work / requestBytes) * health.ramp;
        score = Math.min((load + 1) * health.penalty - 1, maxLoadScore) - bytes / requestBytes;
        if (health.ramp > 1 || health.penalty > 1) this.#weighted.add(member);
        else this.#weighted.delete(member);
      }
    }
    if (health.state !== 'live') score += health.spared ? ejectedScore : suspectScore;
    if (health.busyUntil > 0) score += busyScore;
    this.#scores[member.slot] = score;
  }

  #upsert(given: Instance): void {
    const unreachable = this.#kvAddressNeeded && (given.kvHost === '' || given.kvPort === 0);
    const instance = unreachable ? { ...given, roles: given.roles.filter((role) => role !== 'prefill') } : given;
    const previous = this.#members.get(instance.id);
    if (previous !== undefined && isSameInstance(previous.instance, instance)) return;
    if (instance.roles.length < given.roles.length) this.#onKvAddressMissing(instance.id);
    const { id, host, port, kvHost, kvPort } = instance;
    const address: InstanceAddress = { id, host, port, kvHost, kvPort };
    // Another address is another process, whatever it is called: it inherits no record of failures.
    const isOther = previous?.instance.host !== host || previous.instance.port !== port;
    const forgets = instance.order?.kind === 'readmit' && previous?.instance.order?.kind !== 'readmit';
    const health = previous === undefined || isOther || forgets ? new Health(this.#slowStartMs) : previous.health;
    for (const model of servedModels(instance) ?? []) this.#served.add(model);
    if (instance.model === '') this.#servedUndeclared = true;
    const isKept = health === previous?.health;
    this.#remove(id, isKept);
    const member: Member = {
      instance,
      address,
      decision: { route: 'internal', instance: address },
      health,
      // Another process has another cache.
      number: isKept ? previous.number : (this.#caches?.add(id) ?? 0),
      hash: previous?.hash ?? hashOf(id),
      slot: -1,
      changeAt: Number.POSITIVE_INFINITY,
      engine: isKept ? previous.engine : null,
      elsewhereBytes: isKept ? previous.elsewhereBytes : 0,
      waitingBytes: 0,
    };
    this.#members.set(id, member);
    this.#numbered[member.number] = member;
    this.#stale = true;
    if (!isKept) this.#joined.add(member);
    // The next decision looks at what time has changed.
    this.#settle(member, Number.NEGATIVE_INFINITY);
  }

  #leave(id: string): void {
    const instance = this.#members.get(id)?.instance;
    // What it served will never be known.
    if (instance !== undefined && servedModels(instance) === null) this.#served.add('');
    this.#remove(id);
  }

  #remove(id: string, keepsCache = false): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    this.#members.delete(id);
    this.#weighted.delete(member);
    this.#numbered[member.number] = undefined;
    if (!keepsCache) {
      this.#caches?.remove(id);
      this.#measured -= Number(member.engine?.isMeasured ?? false);
    }
    this.#ejected.delete(member);
    this.#due.delete(member);
    this.#joined.delete(member);
    this.#unsettled.delete(member);
    this.#stale = true;
  }
}

/** Why a pool cannot choose an instance; undefined: it can. */
function outOf(instance: Instance, pool: Pool, isUnpaired: boolean): ExplainedCandidate['out'] {
  if (isTakenOut(instance)) return instance.order?.kind === 'drain' ? 'drain' : 'eject';
  if (!instance.roles.includes(pool.role)) return 'role';
  if (!pool.serves(instance)) return 'model';
  return isUnpaired ? 'no_decode' : undefined;
}

function stateOf({ state, suspect, busyUntil }: Health, now: number): ExplainedCandidate['state'] {
  if (state === 'live') return busyUntil > now ? 'busy' : 'live';
  return suspect ? 'suspect' : state === 'ejected' ? 'ejected' : 'probing';
}

/** Also of what is infinite. */
function order(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}

/** The models that some instances name, and whether one of them may serve any. */
interface Names {
  readonly names: Set<string>;
  readonly any: boolean;
}

function namesOf(instances: readonly Instance[]): Names {
  const names = new Set<string>();
  let any = false;
  for (const instance of instances) {
    const served = servedModels(instance);
    if (served === null) any = true;
    else for (const name of served) names.add(name);
  }
  return { names, any };
}

/**
 * Whether a model of a prefill instance is among those that are decoded; one that names none is
 * taken to have one.
 */
function isDecoded(prefill: Instance, { names, any }: Names): boolean {
  const served = servedModels(prefill);
  if (any) return true;
  return served === null ? names.size > 0 : served.some((name) => names.has(name));
}

function decisionFor(choice: Choice | undefined): Decision {
  if (choice === undefined) return none;
  const { member, expected } = choice;
  return expected === null ? member.decision : { route: 'internal', instance: member.address, expected };
}

function promptBytes({ bytes }: AskedPrompt): number {
  return Math.min(bytes, maxPromptBytes);
}

/** Whether two say the same of where an instance is. Ids are not compared. */
export function isSameAddress(a: InstanceAddress, b: InstanceAddress): boolean {
  return a.host === b.host && a.port === b.port && a.kvHost === b.kvHost && a.kvPort === b.kvPort;
}
