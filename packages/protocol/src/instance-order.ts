import { type Static, Type } from 'typebox';
import { Epoch } from './fields.ts';
import { defineEvent, defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * What a person can order for an instance. `undrain` ends a `drain`, `readmit` ends an `eject` and
 * forgets failures.
 */
export const orderKinds = ['drain', 'undrain', 'eject', 'readmit'] as const;
export type OrderKind = (typeof orderKinds)[number];

/** No order lasts longer, so a forgotten one ends by itself. */
export const maxOrderMs = 7 * 24 * 3_600_000;

const Id = Type.String({ minLength: 1, maxLength: 512 });
const Who = Type.String({ minLength: 1, maxLength: 128 });
const Why = Type.String({ maxLength: 300 });

/** Sent to any replica of discovery, which passes it to the others. */
export const InstanceOrder = Type.Object({
  instance: Id,
  kind: Type.Enum(orderKinds),
  /** How long it lasts, in milliseconds. `undrain` and `readmit` end at once and ignore it. */
  forMs: Type.Integer({ minimum: 1000, maximum: maxOrderMs }),
  /** Who ordered it, and why: for the events. */
  by: Who,
  reason: Why,
  /** Take it out even when nothing else serves its model. */
  force: Type.Boolean(),
});
export type InstanceOrder = Static<typeof InstanceOrder>;

export const OrderReply = Type.Object({
  replica: Type.String(),
  /**
   * `unknown`: no such instance. `last`: nothing else serves its model and role, and the order does
   * not say `force`. `full`: too many orders.
   */
  result: Type.Enum(['done', 'unknown', 'last', 'full']),
});
export type OrderReply = Static<typeof OrderReply>;
export const instanceOrder = defineRequest(subjects.instanceOrder, InstanceOrder, OrderReply);

/**
 * All orders that one replica holds. Published with each new one, and each second while there are
 * any, so that a replica that starts later has them, too. Of two for one instance the later one
 * counts.
 */
export const InstanceOrders = Type.Object({
  replica: Type.String({ maxLength: 64 }),
  orders: Type.Array(
    Type.Object({
      instance: Id,
      kind: Type.Enum(orderKinds),
      /** When it was given, in milliseconds since 1970. */
      atMs: Epoch,
      /** When it ends. Of one that ended another: until when it is remembered. */
      untilMs: Epoch,
      by: Who,
      reason: Why,
    }),
    { maxItems: 500 },
  ),
});
export type InstanceOrders = Static<typeof InstanceOrders>;
export type HeldOrder = InstanceOrders['orders'][number];
export const instanceOrders = defineEvent(subjects.instanceOrders, InstanceOrders);
