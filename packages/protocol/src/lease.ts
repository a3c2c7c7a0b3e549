import { type Static, Type } from 'typebox';
import { Count, Milliseconds } from './fields.ts';
import { InstanceAddress, roles } from './instance.ts';
import { defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/** An ingress asks a router for picks in advance. */

/** So many picks one pool is given at a time. */
export const maxLeasedPicks = 256;

/** Asks one router, by its own subject, for picks in advance, for several pools at once. */
export const LeaseQuery = Type.Object({
  ingress: Type.String(),
  generation: Type.String(),
  pools: Type.Array(
    Type.Object({
      role: Type.Enum(roles),
      /**
       * A model that some instance declares; empty: the instances that declare none; null: any
       * instance. Never a name that only a client gave.
       */
      model: Type.Union([Type.String(), Type.Null()]),
      /** How many picks, at most. */
      count: Type.Integer({ minimum: 1, maximum: maxLeasedPicks }),
    }),
    { maxItems: 512 },
  ),
});
export type LeaseQuery = Static<typeof LeaseQuery>;

/**
 * In the order of the pools. A generation that differs from the router's own is answered with no
 * leases.
 */
export const LeaseReply = Type.Object({
  router: Type.String(),
  /** In one count with that of `RouteReply`. */
  sequence: Count,
  generation: Type.String(),
  /** How long a pick may be used, counted from when it was asked for. */
  validMs: Milliseconds,
  leases: Type.Array(
    Type.Object({
      instances: Type.Array(InstanceAddress, { maxItems: maxLeasedPicks }),
      /**
       * Indices of `instances`, in the order in which requests are to take them. None: ask for each
       * decision.
       */
      picks: Type.Array(Count, { maxItems: maxLeasedPicks }),
    }),
    { maxItems: 512 },
  ),
});
export type LeaseReply = Static<typeof LeaseReply>;
export const routeLease = defineRequest(subjects.routeLease, LeaseQuery, LeaseReply);
