import { type Static, Type } from 'typebox';
import { Count } from './fields.ts';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/** An ingress reports what it has at instances, and what happened there. */

/**
 * What one ingress holds in flight: a gauge, so nothing can leak; instances with none are left out.
 * `seen` is, per router, the sequence of the last reply this ingress took: choices up to it are
 * counted in `inFlight`, later ones are not yet.
 */
export const LoadReport = Type.Object({
  ingress: Type.String(),
  seen: Type.Record(Type.String(), Count),
  inFlight: Type.Record(Type.String(), Count),
  /**
   * Picks that routers leased to it and that no request has taken yet, per instance: as a gauge,
   * too. It holds no longer than a lease is valid.
   */
  leased: Type.Optional(Type.Record(Type.String(), Count)),
  /**
   * Bytes of prompts whose answers have not begun, less what the instance is believed to have
   * cached: as a gauge, too.
   */
  waiting: Type.Optional(Type.Record(Type.String(), Count)),
});
export type LoadReport = Static<typeof LoadReport>;
export const loadReport = defineEvent(subjects.loadReport, LoadReport);

/**
 * What happened at instances since the last report of this ingress; instances where nothing failed
 * and nothing had failed are left out.
 */
export const OutcomeReport = Type.Object({
  ingress: Type.String(),
  outcomes: Type.Array(
    Type.Object({
      instance: Type.String(),
      /**
       * Failures (connection, 5xx, refusals that others do not give) of the period since its last
       * success.
       */
      failures: Count,
      /** Whether any call succeeded in the period. */
      succeeded: Type.Boolean(),
      /** 429 or 503: alive, but it wants less. */
      busy: Count,
      /**
       * All failures of the period. With `served` the share of calls that fail; both are left out
       * by older ingresses.
       */
      failed: Type.Optional(Count),
      /** Calls that succeeded in the period; counted for some calls after a failure. */
      served: Type.Optional(Count),
      /**
       * Bytes of prompts that were expected in its cache, of answers that said what was there; told
       * of an instance that misses some.
       */
      expectedBytes: Type.Optional(Count),
      /** What was there of them. */
      foundBytes: Type.Optional(Count),
    }),
  ),
});
export type OutcomeReport = Static<typeof OutcomeReport>;
export const outcomeReport = defineEvent(subjects.outcomeReport, OutcomeReport);
