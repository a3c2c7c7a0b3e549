import {
  type HeldOrder,
  type Instance,
  type InstanceOrder,
  type InstanceOrders,
  isTakenOut,
  maxOrderMs,
  type OrderReply,
  servedModels,
} from '@llm-gateway/protocol';

/** Maximum orders at once; each ends by itself. */
const maxOrders = 200;
/** How long a readmission is announced, so that every follower forgets the failures once. */
const readmitMs = 5000;
/** Clocks of replicas may differ by so much. */
const skewMs = 60_000;

interface Now {
  readonly nowMs: number;
}

/**
 * What people ordered for instances, as one replica holds it: a table with the last order of each
 * instance and its end. All replicas hold the same, because each takes over what is newer. Times
 * are milliseconds since 1970.
 */
export class Orders {
  readonly #held = new Map<string, HeldOrder>();

  get size(): number {
    return this.#held.size;
  }

  /** Takes an order, or says why not. `instances` are those that are listed. */
  give(order: InstanceOrder, instances: ReadonlyMap<string, Instance>, { nowMs }: Now): OrderReply['result'] {
    const instance = instances.get(order.instance);
    if (instance === undefined) return 'unknown';
    if (this.#held.size >= maxOrders && !this.#held.has(order.instance)) return 'full';
    const takesOut = order.kind === 'drain' || order.kind === 'eject';
    if (takesOut && !order.force && this.#isLast(instance, instances)) return 'last';
    const { kind, by, reason } = order;
    const before = this.#held.get(instance.id);
    // What ended another order is remembered for as long as that one would last: a replica may still hold it.
    const untilMs = takesOut ? nowMs + order.forMs : Math.max(before?.untilMs ?? 0, nowMs + readmitMs);
    const atMs = Math.max(nowMs, (before?.atMs ?? 0) + 1);
    this.#held.set(instance.id, { instance: instance.id, kind, atMs, untilMs, by, reason });
    return 'done';
  }

  /** Takes over what another replica holds. Answers which instances that changed. */
  merge({ orders }: InstanceOrders, { nowMs }: Now): string[] {
    const changed: string[] = [];
    for (const order of orders) {
      const before = this.#held.get(order.instance);
      if (before !== undefined && before.atMs >= order.atMs) continue;
      if (before === undefined && this.#held.size >= maxOrders) continue;
      if (order.untilMs <= nowMs || order.atMs > nowMs + skewMs || order.untilMs > nowMs + maxOrderMs + skewMs)
        continue;
      this.#held.set(order.instance, order);
      changed.push(order.instance);
    }
    return changed;
  }

  /** Forgets the orders whose time is over. Answers of which instances. */
  expire({ nowMs }: Now): string[] {
    const ended: string[] = [];
    for (const order of this.#held.values()) {
      const { instance, kind, atMs, untilMs } = order;
      if (untilMs <= nowMs) this.#held.delete(instance);
      // What is left of it is that it ended another order.
      else if (kind === 'readmit' && nowMs - atMs >= readmitMs) this.#held.set(instance, { ...order, kind: 'undrain' });
      else continue;
      ended.push(instance);
    }
    return ended;
  }

  all(): HeldOrder[] {
    return [...this.#held.values()];
  }

  /** The instance as announced, with its order. */
  applied(instance: Instance, { nowMs }: Now): Instance {
    const order = this.#held.get(instance.id);
    if (order === undefined || order.kind === 'undrain' || order.untilMs <= nowMs) return instance;
    return { ...instance, order: { kind: order.kind, untilMs: order.untilMs } };
  }

  /** Whether nothing else takes requests for its model, in one of its roles. */
  #isLast(instance: Instance, instances: ReadonlyMap<string, Instance>): boolean {
    const others = [...instances.values()].filter(
      (other) => other.id !== instance.id && !isTakenOut(this.applied(other, { nowMs: 0 })),
    );
    return instance.roles.some((role) => {
      const able = others.filter(({ roles }) => roles.includes(role)).map(servedModels);
      const models = servedModels(instance);
      if (models === null) return able.length === 0;
      return models.some((model) => !able.some((names) => names === null || names.includes(model)));
    });
  }
}
