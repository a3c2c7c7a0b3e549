import { type Instance, type InstanceAddress, isSameInstance, servedModels } from '@llm-gateway/protocol';
import type { Caches } from './caches.ts';
import { Health } from './health.ts';
import type { Member } from './member.ts';
import { ModelGroups } from './model-groups.ts';
import { decodability, namesOf } from './pairing.ts';
import { hashOf } from './rendezvous.ts';
import { ServedModels } from './served-models.ts';

export interface MembershipOptions {
  readonly caches: Caches | null;
  /** Prefills require an instance with a KV address. */
  readonly kvAddressNeeded: boolean;
  readonly onKvAddressMissing: (instance: string) => void;
  /** How long an instance that is new or readmitted is ramped up; 0: not at all. */
  readonly slowStartMs: number;
  /** Called with a member that is new, or that replaces another. */
  readonly onAdded: (member: Member) => void;
  /** Called with a member that is gone, or replaced. */
  readonly onRemoved: (member: Member) => void;
}

/** Which instances there are, and which models they serve. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #members = new Map<string, Member>();
  readonly #served = new ServedModels();
  /** Whether there has been an instance that declared no model. */
  #servedUndeclared = false;
  /** Members that came after the first list: they are ramped up from the next decision on. */
  readonly #joined = new Set<Member>();
  #listed = false;
  /** Whether `sorted`, and all that is made of it, is older than the last change. */
  isStale = false;
  /** By id, as of the last `rebuild`. */
  sorted: readonly Member[] = [];
  /** `Member.hash` by slot. */
  hashes = new Uint32Array(0);
  /** Models that instances name, as of the last `rebuild`. */
  models: ReadonlySet<string> = new Set();
  /**
   * Prefill instances whose model no decode instance serves, as of the last `rebuild`: a request
   * that names none must not begin there.
   */
  unpaired: readonly Member[] = [];
  readonly #numbered: (Member | undefined)[] = [];
  /** Made when first asked for after a change. */
  #groups: ModelGroups | null = null;

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  get(id: string): Member | undefined {
    return this.#members.get(id);
  }

  /** By its number in `Caches`, as of the last `rebuild`. */
  byNumber(number: number): Member | undefined {
    return this.#numbered[number];
  }

  values(): Iterable<Member> {
    return this.#members.values();
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

  /** Gives the members their slots anew. */
  rebuild(): void {
    this.isStale = false;
    this.#groups = null;
    const sorted = [...this.#members.values()].sort((a, b) => (a.instance.id < b.instance.id ? -1 : 1));
    this.sorted = sorted;
    this.#numbered.length = 0;
    for (const [slot, member] of sorted.entries()) {
      member.slot = slot;
      this.#numbered[member.number] = member;
    }
    this.hashes = Uint32Array.from(sorted, (member) => member.hash);
    this.models = namesOf(sorted.map(({ instance }) => instance)).names;
    const decodes = sorted.filter(({ instance }) => instance.roles.includes('decode'));
    const isDecoded = decodability(decodes.map(({ instance }) => instance));
    this.unpaired = sorted.filter(({ instance }) => instance.roles.includes('prefill') && !isDecoded(instance));
  }

  /** Members that came since the last call, but for those of the first list. */
  takeJoined(): readonly Member[] {
    const joined = [...this.#joined];
    this.#joined.clear();
    return joined;
  }

  /**
   * The name of the model that stands for all that the instances of this one serve; see
   * `ModelGroups`.
   */
  groupOf(model: string | null): string | null {
    this.#groups ??= new ModelGroups(this.sorted.map(({ instance }) => instance));
    return this.#groups.of(model);
  }

  /** Whether an instance has named the model since this process began. */
  wasNamed(model: string): boolean {
    return this.#served.named(model);
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

  #upsert(given: Instance): void {
    const { caches, kvAddressNeeded, onKvAddressMissing, slowStartMs, onAdded } = this.#options;
    const unreachable = kvAddressNeeded && (given.kvHost === '' || given.kvPort === 0);
    const instance = unreachable ? { ...given, roles: given.roles.filter((role) => role !== 'prefill') } : given;
    const previous = this.#members.get(instance.id);
    if (previous !== undefined && isSameInstance(previous.instance, instance)) return;
    if (instance.roles.length < given.roles.length) onKvAddressMissing(instance.id);
    const { id, host, port, kvHost, kvPort } = instance;
    const address: InstanceAddress = { id, host, port, kvHost, kvPort };
    // Another address is another process, whatever it is called: it inherits no record of failures.
    const isOther = previous?.instance.host !== host || previous.instance.port !== port;
    const forgets = instance.order?.kind === 'readmit' && previous?.instance.order?.kind !== 'readmit';
    const health = previous === undefined || isOther || forgets ? new Health(slowStartMs) : previous.health;
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
      number: isKept ? previous.number : (caches?.add(id) ?? 0),
      hash: previous?.hash ?? hashOf(id),
      slot: -1,
      changeAt: Number.POSITIVE_INFINITY,
      engine: isKept ? previous.engine : null,
      elsewhereBytes: isKept ? previous.elsewhereBytes : 0,
      waitingBytes: 0,
    };
    this.#members.set(id, member);
    this.isStale = true;
    if (!isKept) this.#joined.add(member);
    onAdded(member);
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
    if (!keepsCache) this.#options.caches?.remove(id);
    this.#joined.delete(member);
    this.isStale = true;
    this.#options.onRemoved(member);
  }
}
