import { type Bus, Reasons } from '@llm-gateway/bus';
import {
  type Instance,
  type InstanceOrder,
  instanceOrder,
  instanceOrders,
  instancesChanged,
  instancesList,
  type OrderReply,
} from '@llm-gateway/protocol';
import type { Logger, Metrics } from '@llm-gateway/runtime';
import { Orders } from './orders.ts';
import { Revisions } from './revisions.ts';

interface AnnouncingParts {
  readonly replica: string;
  /** See `InstancesChange.source`. */
  readonly source: string;
  readonly bus: Bus;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Metrics;
  /** Another replica has just started, and asks for what this one holds. */
  readonly onGreeted: () => void;
}

export const maxLoggedId = 300;
const wall = () => ({ nowMs: Date.now() });

/**
 * What one replica says of the instances: the list of its source, with the orders of people
 * applied. It says nothing before the store was read once: an empty list would be believed.
 */
export class Announcing implements Disposable {
  readonly #parts: AnnouncingParts;
  readonly #revisions: Revisions;
  readonly #orders = new Orders();
  /** As the source has them, without orders. */
  readonly #live = new Map<string, Instance>();
  readonly #open = new DisposableStack();
  #speaking = false;
  #storeUp = false;

  constructor(parts: AnnouncingParts) {
    this.#parts = parts;
    const { replica, source, bus, log, metrics } = parts;
    const tooLarge = metrics.counter({
      name: 'instances_too_large_total',
      help: 'Instances not announced because their names are too long for a message',
    });
    const reasons = new Reasons();
    this.#revisions = new Revisions(replica, {
      source,
      busMaxBytes: () => bus.maxBytes,
      onTooLarge(id) {
        tooLarge.inc();
        const line = reasons.take('too_large');
        if (line !== null)
          log.warn({ instance: id.slice(0, maxLoggedId), ...line }, 'instance too large for a message; not announced');
      },
    });
  }

  get speaking(): boolean {
    return this.#speaking;
  }

  /** What is announced, for people who look. */
  get state(): { readonly storeUp: boolean; readonly instances: number; readonly orders: number } {
    return { storeUp: this.#storeUp, instances: this.#revisions.size, orders: this.#orders.size };
  }

  /**
   * Takes the orders of other replicas. Also before this one answers: they are there when the
   * instances are.
   */
  followOrders(): void {
    const { replica, bus, onGreeted } = this.#parts;
    this.#open.use(
      bus.subscribe(instanceOrders, (held) => {
        if (held.replica === replica) return;
        this.#announceOrders(this.#orders.merge(held, wall()));
        // It has just started, and asks.
        if (held.orders.length > 0) return;
        this.#publishOrders();
        onGreeted();
      }),
    );
    // Followers that were cut off together with us need not wait for the next beat.
    if (bus.connected) this.#greet();
    this.#open.use(
      bus.onStatus((connected) => {
        if (!connected) return;
        this.#greet();
        this.beat();
      }),
    );
  }

  /** Whether the source is to be had. True when that changed. */
  setStore(up: boolean): boolean {
    const changed = up !== this.#storeUp;
    this.#storeUp = up;
    return changed;
  }

  /** Announces changes of the source, or of the models that instances report. */
  change(upserts: readonly Instance[], removals: readonly string[]): void {
    for (const id of removals) this.#live.delete(id);
    for (const instance of upserts) this.#live.set(instance.id, instance);
    this.#announce(upserts, removals);
  }

  /** Answers from now on: the store was read. */
  speak(): void {
    const { replica, bus, log } = this.#parts;
    this.#speaking = true;
    for (const owner of [replica, undefined]) {
      this.#open.use(bus.respond(instancesList, ({ after }) => this.#revisions.page(after, this.#storeUp), { owner }));
    }
    this.#open.use(bus.respond(instanceOrder, (order) => this.#order(order)));
    log.info({ replica, instances: this.#revisions.size }, 'instance list loaded');
  }

  /** Each second: followers that miss three take the replica for dead. */
  beat(): void {
    const { bus } = this.#parts;
    this.#announceOrders(this.#orders.expire(wall()));
    this.#publishOrders();
    if (this.#speaking && bus.connected) bus.publish(instancesChanged, this.#revisions.heartbeat(this.#storeUp));
  }

  [Symbol.dispose](): void {
    this.#open.dispose();
  }

  #announce(upserts: readonly Instance[], removals: readonly string[]): void {
    const now = wall();
    const given = upserts.map((instance) => this.#orders.applied(instance, now));
    const messages = this.#revisions.change(given, removals, this.#storeUp);
    if (this.#speaking) for (const message of messages) this.#parts.bus.publish(instancesChanged, message);
  }

  #order(order: InstanceOrder): OrderReply {
    const { replica, log } = this.#parts;
    const result = this.#orders.give(order, this.#live, wall());
    if (result === 'done') {
      // The followers of the other replicas first: theirs have the longer way.
      this.#publishOrders();
      this.#announceOrders([order.instance]);
      const { instance, kind, forMs, by, reason } = order;
      log.info({ instance: instance.slice(0, maxLoggedId), kind, forMs, by, reason }, 'instance order accepted');
    }
    return { replica, result };
  }

  /** Announces instances whose orders changed or ended. */
  #announceOrders(ids: readonly string[]): void {
    const upserts = ids.flatMap((id) => this.#live.get(id) ?? []);
    if (upserts.length > 0) this.#announce(upserts, []);
  }

  #publishOrders(): void {
    if (this.#orders.size > 0 && this.#parts.bus.connected) this.#greet();
  }

  #greet(): void {
    const { replica, bus } = this.#parts;
    bus.publish(instanceOrders, { replica, orders: this.#orders.all() });
  }
}
