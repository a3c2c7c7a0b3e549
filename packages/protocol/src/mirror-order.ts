import { type Static, Type } from 'typebox';
import { Epoch } from './fields.ts';
import { maxOrderMs } from './instance-order.ts';
import { defineEvent, defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

const Who = Type.String({ minLength: 1, maxLength: 128 });
const Why = Type.String({ maxLength: 300 });

/** Sent to any replica of discovery, which passes it to the ingresses and the other replicas. */
export const MirrorOrder = Type.Object({
  /** `pause`: no request is copied. `resume` ends it; the mirror config counts again. */
  kind: Type.Enum(['pause', 'resume']),
  /** How long a pause lasts, in milliseconds; `resume` ignores it. */
  forMs: Type.Integer({ minimum: 1000, maximum: maxOrderMs }),
  /** Who ordered it, and why. */
  by: Who,
  reason: Why,
});
export type MirrorOrder = Static<typeof MirrorOrder>;
export const mirrorOrder = defineRequest(
  subjects.mirrorOrder,
  MirrorOrder,
  Type.Object({ replica: Type.String({ maxLength: 64 }), untilMs: Epoch }),
);

/**
 * The last order for the mirror, sent with each new one and each second until its end, so that
 * ingresses and replicas of discovery that start later have it, too. Of two the later one counts.
 */
export const MirrorPause = Type.Object({
  paused: Type.Boolean(),
  /** When it was given, in milliseconds since 1970. */
  atMs: Epoch,
  /** When it ends. Of one that ended another: until when it is remembered. */
  untilMs: Epoch,
  by: Who,
  reason: Why,
});
export type MirrorPause = Static<typeof MirrorPause>;
export const mirrorPaused = defineEvent(subjects.mirrorPaused, MirrorPause);

/** Clocks of processes may differ by so much. */
const skewMs = 60_000;

/** The order that counts, of a held and a received one. `nowMs` in milliseconds since 1970. */
export function laterPause(held: MirrorPause | null, told: MirrorPause, nowMs: number): MirrorPause | null {
  const isBelievable =
    told.untilMs > nowMs && told.atMs <= nowMs + skewMs && told.untilMs <= nowMs + maxOrderMs + skewMs;
  if (!isBelievable || (held !== null && held.atMs >= told.atMs)) return held;
  return told;
}
