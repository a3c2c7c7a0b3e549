import { type Static, Type } from 'typebox';
import { Count } from './fields.ts';
import { Instance } from './instance.ts';
import { defineEvent, defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/** Discovery says which instances there are. */

/**
 * One page of a replica's instances, sorted by id. A further page is asked of the same replica,
 * with the last id seen.
 */
export const InstancesPage = Type.Object({
  replica: Type.String(),
  /** A page of another revision than the first means: begin again. */
  revision: Count,
  storeUp: Type.Boolean(),
  instances: Type.Array(Instance),
  more: Type.Boolean(),
});
export type InstancesPage = Static<typeof InstancesPage>;
export const instancesList = defineRequest(
  subjects.instancesList,
  Type.Object({ after: Type.Optional(Type.String()) }),
  InstancesPage,
);

/**
 * A change of the set, or with none a heartbeat (each second). `previous` ≠ the revision a follower
 * holds means it missed one.
 */
export const InstancesChange = Type.Object({
  replica: Type.String(),
  revision: Count,
  previous: Count,
  storeUp: Type.Boolean(),
  upserts: Type.Array(Instance),
  removals: Type.Array(Type.String()),
  /**
   * A fingerprint of the store or list that the replica reads: the same for all replicas of an
   * installation.
   */
  source: Type.Optional(Type.String({ maxLength: 64 })),
});
export type InstancesChange = Static<typeof InstancesChange>;
export const instancesChanged = defineEvent(subjects.instancesChanged, InstancesChange);
