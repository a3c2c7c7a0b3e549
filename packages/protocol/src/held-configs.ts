import { type Static, Type } from 'typebox';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/** A process holds so many route configs at most. */
export const maxHeldGenerations = 8;

/** The route configs that a process holds, by generation; sent on each change and each second. */
export const ConfigHeld = Type.Object({
  process: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  service: Type.String({ maxLength: 32, pattern: '^[a-z-]+$' }),
  /** The newest first. A router answers for each of them, a retry worker takes jobs of each. */
  generations: Type.Array(Type.String({ maxLength: 64 }), { maxItems: maxHeldGenerations }),
  /**
   * The one that new requests are decided by; of an ingress not the newest until a router holds
   * that.
   */
  active: Type.String({ maxLength: 64 }),
});
export type ConfigHeld = Static<typeof ConfigHeld>;
export const configHeld = defineEvent(subjects.configHeld, ConfigHeld);
