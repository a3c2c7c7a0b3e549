import type { Role } from '@llm-gateway/protocol';
import type { Member } from './member.ts';
import type { Membership } from './membership.ts';
import { Pool } from './pool.ts';
import type { Recovery } from './recovery.ts';

/** The pools by role and model, and which of their members they can spare. */
export class Pools {
  readonly #members: Membership;
  readonly #recovery: Recovery;
  /**
   * Per role, by `Pool.model`; but for null made when first asked for, so at most one for each
   * model that instances name or have named, and two more.
   */
  readonly #pools: Readonly<Record<Role, Map<string | null, Pool>>> = {
    neutral: new Map(),
    prefill: new Map(),
    decode: new Map(),
  };

  /** @param roles that always have a pool */
  constructor(members: Membership, recovery: Recovery, roles: readonly Role[]) {
    this.#members = members;
    this.#recovery = recovery;
    for (const role of roles) this.#pools[role].set(null, new Pool(role, null));
  }

  /** The pool that a request for the model is served from. */
  of(role: Role, model: string | null, now: number): Pool {
    return this.#byKey(role, this.keyOf(model), now);
  }

  /** The same for a name that `keyOf` or a group gave: an empty one is not any model. */
  named(role: Role, key: string | null, now: number): Pool {
    return this.#byKey(role, key === '' && this.#members.models.size > 0 ? '' : this.keyOf(key), now);
  }

  /**
   * Models that no instance has named share one pool: clients choose these names, and must not each make
   * one. A model whose instances are gone has one still: others do not serve it, and would call it
   * the client's mistake.
   */
  keyOf(model: string | null): string | null {
    if (model === null || model === '' || this.#members.models.size === 0) return null;
    return this.#members.models.has(model) || this.#members.wasNamed(model) ? model : '';
  }

  /** Fills all pools from the members, which have new slots. */
  rebuild(now: number): void {
    for (const pools of Object.values(this.#pools)) {
      for (const [key, pool] of pools) {
        if (key === null || key === '' || this.#members.models.has(key)) this.#fill(pool, now);
        else pools.delete(key);
      }
    }
  }

  /** Whether each pool in use keeps at least half of its instances without this one. */
  canSpare(member: Member): boolean {
    for (const pools of Object.values(this.#pools)) {
      for (const pool of pools.values()) {
        if (!pool.takes(member.instance)) continue;
        const others = this.#ejectedIn(pool).filter((ejected) => ejected !== member);
        if (others.length + 1 > Math.floor(pool.slots.length / 2)) return false;
      }
    }
    return true;
  }

  #byKey(role: Role, key: string | null, now: number): Pool {
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
   * After a pool shrank, more than half of it may be ejected: it cannot spare those whose time is
   * over first.
   */
  #fill(pool: Pool, now: number): void {
    pool.fill(this.#members.sorted.map((member) => member.instance));
    const ejected = this.#ejectedIn(pool).sort((a, b) => a.health.until - b.health.until);
    const surplus = ejected.length - Math.floor(pool.slots.length / 2);
    for (const member of ejected.slice(0, Math.max(surplus, 0))) {
      member.health.spared = false;
      this.#recovery.settle(member, now);
    }
  }

  #ejectedIn(pool: Pool): Member[] {
    return [...this.#recovery.ejected].filter((member) => pool.takes(member.instance));
  }
}
