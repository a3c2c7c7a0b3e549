import {
  type Ask,
  type Decision,
  type EngineFigures,
  type ExplainedPool,
  type Instance,
  type InstanceAddress,
  isTakenOut,
  type LoadReport,
  type OutcomeReport,
  type Role,
} from '@llm-gateway/protocol';
import type { RouteTable } from '@llm-gateway/routing';
import type { Caches } from './caches.ts';
import { type Choice, type ChoiceContext, Chooser, type Wish } from './choice.ts';
import type { EngineReportResult } from './engine-load.ts';
import { type ExplainOptions, type ExplainParts, explainChoice } from './explain.ts';
import { type Candidate, isSameAddress } from './member.ts';
import { Membership } from './membership.ts';
import { type FleetMode, rolesOf } from './mode.ts';
import { decodability } from './pairing.ts';
import { type FleetPolicy, traitsOf } from './policy.ts';
import { serves } from './pool.ts';
import { Pools } from './pools.ts';
import { Recovery } from './recovery.ts';
import { impossibleScore, Scores, suspectScore } from './scores.ts';
import { countRole, type RoleCount, type Unwell, unwellOf } from './standing.ts';

export interface FleetOptions {
  readonly mode: FleetMode;
  readonly policy: FleetPolicy;
  /**
   * What the instances have cached, for `cache-aware`; its creator feeds it reports of other
   * routers.
   */
  readonly caches?: Caches;
  /** Prefills require an instance with a KV address. */
  readonly kvAddressNeeded?: boolean;
  /**
   * Hears of each instance that is left out of the prefills for it, once as long as it lives
   * unchanged.
   */
  readonly onKvAddressMissing?: (instance: string) => void;
  /** The router id in its replies; empty in an ingress that decides for itself. */
  readonly self?: string;
  /**
   * How long a new or readmitted instance is ramped up unless in turn; 0, the default: not at all.
   */
  readonly slowStartMs?: number;
  /**
   * Called for each instance that failed too often, with its ejection time. See `Health.spared`.
   */
  readonly onEject?: (ejection: Ejection) => void;
}

export interface Ejection {
  readonly instance: string;
  readonly durationMs: number;
  /** False: its pools cannot spare it, so it is chosen last instead. */
  readonly spared: boolean;
}

export interface DecideContext extends ChoiceContext {
  /** Numbers in [0, 1). */
  readonly random: () => number;
}

/** Which pool picks are asked of, by `LeaseQuery`, and how many. */
export interface LeaseWish {
  readonly role: Role;
  readonly model: string | null;
  readonly count: number;
}

const none: Decision = { route: 'none' };

/**
 * The live set of instances, their load and their health; decides which of them takes a request.
 * `Membership` has which instances there are, `Pools` which of them serve a model in a role,
 * `Scores` what each has to do, `Recovery` which are left alone, and `Chooser` takes one.
 */
export class Fleet {
  readonly #mode: FleetMode;
  readonly #caches: Caches | null;
  readonly #onEject: (ejection: Ejection) => void;
  readonly #members: Membership;
  readonly #scores: Scores;
  readonly #recovery: Recovery;
  readonly #pools: Pools;
  readonly #chooser: Chooser;
  readonly #parts: ExplainParts;

  constructor(options: FleetOptions) {
    const traits = traitsOf(options.policy);
    this.#mode = options.mode;
    this.#caches = options.policy === 'cache-aware' ? (options.caches ?? null) : null;
    this.#onEject = options.onEject ?? (() => {});
    this.#members = new Membership({
      caches: this.#caches,
      kvAddressNeeded: options.kvAddressNeeded ?? false,
      onKvAddressMissing: options.onKvAddressMissing ?? (() => {}),
      slowStartMs: traits.isBalanced ? (options.slowStartMs ?? 0) : 0,
      // The next decision looks at what time has changed.
      onAdded: (member) => this.#recovery.settle(member, Number.NEGATIVE_INFINITY),
      onRemoved: (member) => this.#recovery.forget(member),
    });
    this.#scores = new Scores(this.#members, { traits, caches: this.#caches, self: options.self ?? '' });
    this.#recovery = new Recovery(this.#scores);
    this.#pools = new Pools(this.#members, this.#recovery, rolesOf[options.mode]);
    const parts = {
      members: this.#members,
      scores: this.#scores,
      pools: this.#pools,
      recovery: this.#recovery,
      caches: this.#caches,
    };
    this.#parts = { ...parts, chooser: new Chooser(parts) };
    this.#chooser = this.#parts.chooser;
  }

  /** All instances there are now, whatever was known before. */
  reset(instances: readonly Instance[]): void {
    this.#members.reset(instances);
  }

  change(upserts: readonly Instance[], removals: readonly string[]): void {
    this.#members.change(upserts, removals);
  }

  /**
   * What one ingress has in flight. Ingresses that stop reporting are forgotten after some seconds.
   */
  report(report: LoadReport, now: number): void {
    if (this.#scores.traits.isCounted) this.#scores.ledger.report(report, now);
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
      if (member.health.observe(outcome, now, this.#scores.ledger.inFlight(outcome.instance))) {
        const spared = this.#pools.canSpare(member);
        const durationMs = member.health.eject(now, { random, spared });
        this.#onEject({ instance: member.instance.id, durationMs, spared });
      }
      this.#recovery.settle(member, now);
    }
  }

  /**
   * What an engine says of itself, as `reporter` read it. It counts until the next report, or until
   * it is too old; a report of an instance that is not known here is ignored.
   */
  engineReport(
    { instance, ...report }: { reporter: string; instance: string; figures: EngineFigures },
    now: number,
  ): EngineReportResult {
    const member = this.#members.get(instance);
    if (member === undefined) return 'unknown_instance';
    const result = this.#scores.takeEngineReport(member, report, now);
    if (result === 'taken') this.#recovery.settle(member, now);
    return result;
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
    this.#scores.ledger.expire(context.now);
    if (ask.stage === 'decode') return decisionFor(this.#chooser.choose('decode', ask, context));
    if (this.#mode === 'neutral') return decisionFor(this.#chooser.choose('neutral', ask, context));
    return this.#choosePair(ask, context);
  }

  /**
   * Picks in advance for requests to come, in their order: instances as `decide` would choose them
   * one after the other. Fewer than asked for where nothing live and not busy is left, and none
   * while one of the pool waits for a probe: those choices are for requests that are there. So are
   * pairs.
   */
  lease({ role, model, count }: LeaseWish, context: ChoiceContext): readonly InstanceAddress[] {
    this.#refresh(context.now);
    this.#scores.ledger.expire(context.now);
    if (this.#mode !== 'neutral' || role !== 'neutral') return [];
    return this.#chooser.lease(this.#pools.named(role, model, context.now), count, context);
  }

  /**
   * The pool that a request for the model is served from, as `LeaseWish.model` names it. There are
   * no more than models that instances have named and two, whatever clients ask for.
   */
  poolOf(model: string | null, now: number): string | null {
    this.#refresh(now);
    return this.#pools.keyOf(model);
  }

  /**
   * The name of the model that stands for all that the instances of this one serve; see
   * `ModelGroups`.
   */
  groupOf(model: string | null, now: number): string | null {
    this.#refresh(now);
    return this.#members.groupOf(this.#pools.keyOf(model));
  }

  /**
   * The instances that take this role for a model or group, by their ids; those that fail only where
   * no others are left.
   */
  serving(role: Role, model: string | null, now: number): readonly string[] {
    this.#refresh(now);
    const well: string[] = [];
    const usable: string[] = [];
    for (const slot of this.#pools.named(role, model, now).slots) {
      const score = this.#scores.values[slot] ?? impossibleScore;
      const id = this.#members.sorted[slot]?.instance.id;
      if (score === impossibleScore || id === undefined) continue;
      usable.push(id);
      if (score < suspectScore) well.push(id);
    }
    return well.length > 0 ? well : usable;
  }

  /** The roles of which a request of this fleet's mode needs an instance each. */
  get roles(): readonly Role[] {
    return rolesOf[this.#mode];
  }

  /**
   * The instance that a pick names, when it is known here at the same address and serves the pool.
   */
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
    return this.#members.hasNamed(model);
  }

  /**
   * Whether an instance may have served the model since this process began: it named it, or one
   * declared none. True while no instance is known.
   */
  hasServed(model: string | null): boolean {
    return this.#members.hasServed(model);
  }

  /** Whether an instance names the model now; true for no model, and while none names any. */
  names(model: string | null, now: number): boolean {
    this.#refresh(now);
    const { models } = this.#members;
    return !model || models.size === 0 || models.has(model);
  }

  /** The instances that this fleet's mode can choose, in no particular order. */
  instances(): readonly Instance[] {
    const { roles } = this;
    return [...this.#members.values()]
      .map((member) => member.instance)
      .filter((instance) => instance.roles.some((role) => roles.includes(role)));
  }

  counts(now: number): readonly RoleCount[] {
    this.#refresh(now);
    return this.roles.map((role) => countRole(role, this.#members.sorted));
  }

  /** Instances that are not live or are busy, at most `max`. */
  unwell(now: number, max: number): readonly Unwell[] {
    this.#refresh(now);
    return unwellOf(this.#members.values(), { now, max });
  }

  /**
   * Which instances `decide` would choose now for an ask that goes to instances, and how the others
   * compare: a pool for each role, the best candidate first, at most `max` of each. Nothing is
   * chosen, reserved or counted.
   */
  explain(ask: Wish, options: ExplainOptions): readonly ExplainedPool[] {
    this.#refresh(options.now);
    this.#scores.ledger.expire(options.now);
    return explainChoice(this.#parts, ask, { mode: this.#mode, ...options });
  }

  /** Whether an operator ordered the instance out, so that it gets no new request. */
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
    return prefills.some(decodability(instances.filter(({ roles }) => roles.includes('decode'))));
  }

  #choosePair(ask: Ask, context: DecideContext): Decision {
    const pair = this.#chooser.choosePair(ask, context, this.#mode === 'staged');
    if (pair === undefined) return none;
    const { expected, member } = pair.prefill;
    const prefill = { route: 'pair' as const, prefill: member.address, ...(expected !== null && { expected }) };
    if (pair.decode !== null) return { ...prefill, decode: pair.decode.address };
    return pair.model === '' ? { ...prefill, decode: null } : { ...prefill, decode: null, model: pair.model };
  }

  /** Updates the members for the time, and everything derived from them. */
  #refresh(now: number): void {
    if (this.#members.isStale) this.#rebuild(now);
    this.#recovery.tick(now);
  }

  #rebuild(now: number): void {
    this.#members.rebuild();
    this.#scores.rebuild();
    for (const member of this.#members.takeJoined()) {
      member.health.startRamp(now);
      this.#recovery.settle(member, now);
    }
    this.#pools.rebuild(now);
  }
}

function decisionFor(choice: Choice | undefined): Decision {
  if (choice === undefined) return none;
  const { member, expected } = choice;
  return expected === null ? member.decision : { route: 'internal', instance: member.address, expected };
}
