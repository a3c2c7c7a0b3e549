import { type Static, Type } from 'typebox';
import { Count, Milliseconds } from './fields.ts';
import { defineEvent, defineJob } from './message.ts';
import { subjects } from './subjects.ts';

/** An ingress has copies sent, and learns how they ended. */

const HeaderPairs = Type.Array(Type.Tuple([Type.String(), Type.String()]));

/** One mirror copy; its body follows the fields as raw bytes, or waits at `claim`. */
export const MirrorCopy = Type.Object({
  requestId: Type.String(),
  ingress: Type.String(),
  /** Counts the copies of this ingress; with it, the name of this one. */
  copy: Count,
  method: Type.String(),
  /** The whole URL at the target. */
  url: Type.String(),
  headers: HeaderPairs,
  /** 0: no limit of its own. */
  timeoutMs: Milliseconds,
  log: Type.Boolean(),
  compare: Type.Boolean(),
  /** Set when the body is too large for the bus: GET it once, with the token. */
  claim: Type.Optional(Type.Object({ url: Type.String(), token: Type.String(), bytes: Count })),
});
export type MirrorCopy = Static<typeof MirrorCopy>;
export const mirrorSend = defineJob(subjects.mirrorSend, MirrorCopy);

/** How the primary of a compared copy ended. */
export const MirrorPrimary = Type.Object({
  requestId: Type.String(),
  ingress: Type.String(),
  copy: Count,
  status: Count,
  timeToFirstByteMs: Type.Union([Milliseconds, Type.Null()]),
  durationMs: Milliseconds,
  bytes: Count,
  finishReason: Type.Union([Type.String(), Type.Null()]),
});
export type MirrorPrimary = Static<typeof MirrorPrimary>;
export const mirrorPrimary = defineEvent(subjects.mirrorPrimary, MirrorPrimary);

/** Outcomes of a copy: the target answered successfully, failed, or was never called. */
export const copyOutcomes = ['sent', 'failed', 'dropped'] as const;
export type CopyOutcome = (typeof copyOutcomes)[number];

/**
 * What one sender holds of one ingress's copies, and which ended since its last report. Holdings
 * are a gauge, repeated as long as they last: a copy that no report names for seconds is lost, with
 * its sender or on its way.
 */
export const MirrorReport = Type.Object({
  sender: Type.String(),
  ingress: Type.String(),
  held: Type.Array(Count),
  ended: Type.Array(
    Type.Object({
      copy: Count,
      outcome: Type.Enum(copyOutcomes),
      /** Why it failed or was dropped, a word; empty when it was sent. */
      reason: Type.String(),
    }),
  ),
});
export type MirrorReport = Static<typeof MirrorReport>;
export const mirrorReport = defineEvent(subjects.mirrorReport, MirrorReport);
